"""What must change in a DeepSeek checkpoint's config.json before and after msmodelslim. Pure."""

from __future__ import annotations

from typing import Any

from omnikit.weights import json_edit
from omnikit.weights.modeling_edit import Edited, Unexpected

SERVED = "DeepseekV3ForCausalLM"
UNCONVERTED = "name the folder of the result, or convert first: invoke run-msmodelslim"
CONVERTED = "DeepseekV3Fusion"  # the name that msmodelslim writes, which no server knows


def before(text: str) -> Edited:
    """Without quantization_config: msmodelslim reads the fp8 weights by itself.

    Raises Unexpected where it is no fp8 checkpoint of DeepSeek-V3's architecture.
    """
    values = _values(text)
    if values.get("architectures") != [SERVED]:
        raise Unexpected(
            f'expected "architectures": ["{SERVED}"], found {_found(values, "architectures")}'
        )
    if "quantization_config" not in values:
        return Edited(text, ())
    method = _method(values)
    # null is as good as none for us, but transformers takes the key alone for a configuration.
    if method not in ("fp8", None):
        raise Unexpected(
            f'expected a quantization_config with "quant_method": "fp8", found {method!r}:'
            " these weights are converted already, or are no fp8 weights"
        )
    return Edited(
        json_edit.without(text, "quantization_config"), ("quantization_config is removed",)
    )


def after(text: str, layers: int, todo: str = "") -> Edited:
    """With the architecture's name that servers know, and without the MTP layer in the count.

    layers: of the model without its MTP layer. todo: what to do where it has another number.
    Raises Unexpected for any other state.
    """
    values = _values(text)
    if _method(values) == "fp8":
        raise Unexpected("expected what msmodelslim wrote, found fp8 weights", UNCONVERTED)
    done = []
    if values.get("architectures") in (CONVERTED, [CONVERTED]):
        text = json_edit.with_value(text, "architectures", [SERVED])
        done.append(f'architectures: {CONVERTED} -> ["{SERVED}"]')
    elif values.get("architectures") != [SERVED]:
        raise Unexpected(
            f'expected "architectures": "{CONVERTED}" (or ["{SERVED}"]),'
            f" found {_found(values, 'architectures')}"
        )
    if values.get("num_hidden_layers") == layers + 1:
        text = json_edit.with_value(text, "num_hidden_layers", layers)
        done.append(f"num_hidden_layers: {layers + 1} -> {layers}")
    elif values.get("num_hidden_layers") != layers:
        raise Unexpected(
            f'expected "num_hidden_layers": {layers + 1} (or {layers}),'
            f" found {_found(values, 'num_hidden_layers')}",
            todo,
        )
    return Edited(text, tuple(done))


def _method(values: dict[str, Any]) -> Any:
    """quant_method of the quantization_config, None where there is none; else what stands there."""
    found = values.get("quantization_config")
    return found.get("quant_method", "no quant_method") if isinstance(found, dict) else found


def _values(text: str) -> dict[str, Any]:
    try:
        return {name: member.value for name, member in json_edit.members(text).items()}
    except ValueError as error:
        raise Unexpected(f"expected a JSON object, found what is none: {error}") from None


def _found(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "none"
