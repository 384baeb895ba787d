"""Whether config.json, and msmodelslim's description, say what the tensors of a checkpoint are."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.architecture import CONVERTED, SERVED
from omnikit.weights.checkpoint.headers import Checkpoint
from omnikit.weights.checkpoint.w8a8 import Conversion

DESCRIPTION = "quant_model_description*.json"
_FIELD = "quantization_config"
_DYNAMIC = "W8A8_DYNAMIC"
_SHOWN = 20
# How scales were found, and how well it packs: nobody who loads the tensors reads these.
_TOLD = ("observer", "observer_kwargs", "global_compression_ratio", "version")
_DEFAULTS = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}
_UNORDERED = ("ignore", "targets")
# What the tensors' shapes and the forward pass depend on.
_ARCHITECTURE = (
    *("num_hidden_layers", "num_nextn_predict_layers", "first_k_dense_replace", "moe_layer_freq"),
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size"),
    *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group"),
    *("topk_method", "scoring_func", "norm_topk_prob", "routed_scaling_factor"),
    *("num_attention_heads", "num_key_value_heads", "q_lora_rank", "kv_lora_rank"),
    *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "attention_bias", "hidden_act"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings"),
)


def native(target: Checkpoint, source: Optional[Conversion]) -> list[str]:
    """Of what convert_weights.py makes."""
    if not target.config:
        return []  # told already: it cannot be read
    config = source.config if source else w8a8.new_config(target)
    wanted_field = config[_FIELD]
    told = _as_ours(target.config.get(_FIELD), wanted_field, target)
    problems = [
        f"config.json: {at} is {shown(found)}, expected {shown(wanted)}"
        for at, found, wanted in _differences(_FIELD, told, wanted_field)
        # What is to be ignored is told by the tensors; of a broken file they are not known.
        if source or not target.faults or at != f"{_FIELD}.ignore"
    ]
    return problems + (_architecture(target, source, False) if source else [])


def _as_ours(told: Any, wanted: dict[str, Any], target: Checkpoint) -> Any:
    """What compressed-tensors means by a configuration, in the words that our own has.

    Groups have any name and targets; targets and ignore are names, classes, or re: with a pattern;
    what is left out has the library's default (compressed-tensors, QuantizationArgs and is_match).
    """
    groups = told.get("config_groups") if isinstance(told, dict) else None
    if not isinstance(groups, dict) or not all(isinstance(one, dict) for one in groups.values()):
        return told or {}
    int8 = [one.name for one in target.tensors.values() if one.dtype == "I8" and len(one.shape) > 1]
    modules = [*(name.removesuffix(".weight") for name in int8), *wanted["ignore"]]
    ignored = _matching(told.get("ignore"), modules)
    made: dict[str, Any] = {}
    left = set(modules)
    for name, group in groups.items():
        used = _matching(group.get("targets"), modules) - ignored
        left -= used
        if used:  # else it is of layers that are not here
            made[name] = {**group, "targets": ["Linear"]}
            for part in ("weights", "input_activations"):
                if isinstance(group.get(part), dict):
                    made[name][part] = _arguments(group[part])
            if made[name].get("format") == wanted["format"]:
                del made[name]["format"]
    first = next(iter(wanted["config_groups"].values()))
    good = [name for name, one in made.items() if not any(_differences("", one, first))]
    shown_as = {name: one for name, one in made.items() if name not in good}
    if good or not made:
        shown_as["group_0"] = first if good else {}
    return {**told, "config_groups": shown_as, "ignore": sorted(left)}


def _matching(patterns: Any, modules: Sequence[str]) -> set[str]:
    """Which modules are meant. All that are asked about here are Linear layers."""
    words = [word for word in patterns if isinstance(word, str)] if patterns else []
    if "Linear" in words:
        return set(modules)
    found = set(words).intersection(modules)
    for word in words:
        if word.startswith("re:"):
            with suppress(re.error):  # it matches nothing then
                pattern = re.compile(word[3:])
                found.update(name for name in modules if pattern.match(name))
    return found


def _arguments(told: dict[str, Any]) -> dict[str, Any]:
    """With defaults; without what only says how scales were found."""
    made = {**_DEFAULTS, **{key: value for key, value in told.items() if value is not None}}
    if made.get("group_size") == -1:
        del made["group_size"]
        made.setdefault("strategy", "channel")
    if made.get("actorder") in ("weight", "static"):
        del made["actorder"]
    return made


def msmodelslim(target: Checkpoint, source: Optional[Conversion]) -> list[str]:
    """Of what msmodelslim makes and finish_checkpoint.py finishes."""
    if not target.config:
        return []
    problems = []
    names = target.config.get("architectures")
    if names != [SERVED]:
        what = f"is {names!r}, expected {[SERVED]!r}"
        todo = "run finish_checkpoint.py" if is_unfinished(target.config) else ""
        problems.append(f"config.json: architectures {what}{todo and ': ' + todo}")
    method = (target.config.get("quantization_config") or {}).get("quant_method")
    if method == "fp8":
        problems.append(
            "config.json: quantization_config is the source's (fp8), expected none: no tensor here"
            " is fp8"
        )
    return problems + (_architecture(target, source, True) if source else [])


def is_unfinished(config: dict[str, Any]) -> bool:
    """Whether config.json is as msmodelslim leaves it (finish_checkpoint.py edits it)."""
    names = config.get("architectures")
    return names in (CONVERTED, [CONVERTED])


def _differences(at: str, found: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """Fields that are not as they must be. What is null, empty or false may be left out."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted:
        for key in dict.fromkeys([*wanted, *found]):
            if key not in _TOLD:
                yield from _differences(f"{at}.{key}", found.get(key), wanted.get(key))
    elif at.rpartition(".")[2] in _UNORDERED and isinstance(found, list):
        if sorted(map(str, found)) != sorted(wanted or []):
            yield at, found, wanted
    elif found != wanted and (found or wanted):
        yield at, found, wanted


def _architecture(target: Checkpoint, source: Conversion, lenient: bool) -> list[str]:
    """Where config.json is not the source's. lenient: what is left out has its default."""
    problems = []
    for key in _ARCHITECTURE:
        found, wanted = target.config.get(key), source.checkpoint.config.get(key)
        if found == wanted or (lenient and None in (found, wanted)):
            continue
        problem = f"config.json: {key} is {shown(found)}, expected {shown(wanted)} as in the source"
        more = lenient and key == "num_hidden_layers" and found == (wanted or 0) + 1
        problems.append(f"{problem}: run finish_checkpoint.py" if more else problem)
    return problems


def shown(value: Any) -> str:
    """Not more of a value than a person reads."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def description(target: Checkpoint, quantised: Sequence[str]) -> list[str]:
    """msmodelslim's own list of what each tensor is, against what it is."""
    found = sorted(target.folder.glob(DESCRIPTION))
    if not found:
        return [f"there is no {DESCRIPTION}"]
    name = Path(found[0]).name
    try:
        told = headers.read_json(found[0])
    except InputError as error:
        return [f"{name} {error.what}"]
    int8 = set(quantised)
    parts = {f"{matrix}{end}" for matrix in quantised for end in ("_scale", "_offset")}
    problems = []
    for tensor in target.tensors.values():
        kind = told.get(tensor.name)
        if kind is None:
            problems.append(f"{name} does not name {tensor.name}")
        elif tensor.name in int8 and kind != _DYNAMIC:
            what = f"but it is int8, and activations are quantised as they come ({_DYNAMIC})"
            problems.append(f"{name} calls {tensor.name} {kind}, {what}")
        elif tensor.name not in int8 | parts and str(kind).startswith("W8A8"):
            problems.append(f"{name} calls {tensor.name} {kind}, but it is {tensor.dtype} (FLOAT)")
    more = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"{name}: {more} more like these"] if more > 0 else [])
