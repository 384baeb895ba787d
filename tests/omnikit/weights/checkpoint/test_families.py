"""Models of other families than DeepSeek-V3: their tensors as transformers has them, and what
becomes of each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnikit.weights.checkpoint import architecture, headers, w8a8
from omnikit.weights.checkpoint.w8a8 import COPY, QUANTISE, WIDEN
from omnikit.weights.loadable import small_deepseek as small

ROOT = Path(__file__).resolve().parents[4]
# Names and shapes of models that transformers has made of these configurations.
RECORDED: dict[str, Any] = json.loads(
    (ROOT / "tests" / "facts" / "weights" / "transformers-tensors.json").read_text()
)["models"]


def published(tensors: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """As checkpoints have them: transformers 5 holds all experts of a layer in two tensors."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in tensors.items():
        at, _, last = name.rpartition(".")
        for expert in range(shape[0]) if at.endswith(".experts") else ():
            rows, columns = shape[1:]
            if last == "down_proj":
                found[f"{at}.{expert}.down_proj.weight"] = (rows, columns)
            else:
                for half in ("gate_proj", "up_proj"):
                    found[f"{at}.{expert}.{half}.weight"] = (rows // 2, columns)
        if not at.endswith(".experts"):
            found[name] = tuple(shape)
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_shapes_are_transformers(name: str) -> None:
    told = RECORDED[name]
    found = architecture.tensors(told["config"], Path())
    assert name in architecture.FAMILIES
    recorded = published(told["tensors"])
    layers = {one.split(".")[2] for one in recorded if one.startswith("model.layers.")}
    made = {
        one: shape
        for one, (_, shape) in found.items()
        if not one.startswith("model.layers.") or one.split(".")[2] in layers
    }
    assert made == recorded


def of(name: str, folder: Path, block: Any) -> w8a8.Conversion:
    config = RECORDED[name]["config"]
    made = small.Small(block, {"architectures": [name], "torch_dtype": "bfloat16", **config})
    made.fill(0, (0.2, 3))
    return w8a8.plan(headers.read(made.write(folder)))


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("block", [(32, 32), None])
def test_what_engines_hold_in_bf16_stays_so(name: str, block: Any, tmp_path: Path) -> None:
    found = of(name, tmp_path / "m", block)
    actions = {p.source.name: p.what for shard in found.shards for p in shard.pieces}
    kept = WIDEN if block else COPY
    for one, what in actions.items():
        short = one.removesuffix(".weight").rpartition(".")[2]
        if short in ("kv_b_proj", "wq_b", "wk"):
            assert what == kept
        else:
            matrix = "_proj" in short and short != "weights_proj"
            assert what == (QUANTISE if matrix and one.endswith(".weight") else COPY), one
    ignored = found.config["quantization_config"]["ignore"]
    floats = {
        one.removesuffix(".weight")
        for one, (dtype, shape) in found.tensors().items()
        if dtype != "I8" and len(shape) == 2 and "embed" not in one and not one.endswith("_scale")
    }
    assert set(ignored) == floats


def test_block_scales_may_be_bf16(tmp_path: Path) -> None:
    """As Qwen3's FP8 checkpoints have them."""
    from omnikit.weights.convert import shard

    config = RECORDED["Qwen3MoeForCausalLM"]["config"]
    made = small.Small((32, 32), {"architectures": ["Qwen3MoeForCausalLM"], **config})
    made.fill(0, (0.2, 3))
    name = "model.layers.0.self_attn.o_proj.weight"
    exact = made.tensors[f"{name}_scale_inv"][1]
    for one, (_, array) in list(made.tensors.items()):
        if one.endswith("_scale_inv"):
            made.tensors[one] = ("BF16", small.bf16(array))
    folder = made.write(tmp_path / "m")
    pieces = [p for one in w8a8.plan(headers.read(folder)).shards for p in one.pieces]
    (piece,) = (one for one in pieces if one.source.name == name)
    assert (shard.scales_of(folder, piece) == small.from_bf16(small.bf16(exact))).all()
