"""A compressed-tensors checkpoint that another tool wrote is judged by what the format means: any
names of groups, targets and ignored layers by name or pattern, defaults left out, 16-bit scales. No
pattern holds the reader up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from omnikit.weights.checkpoint import w8a8
from omnikit.weights.checkpoint.headers import Checkpoint, Tensor
from omnikit.weights.verify import structure

LAYER = "model.layers.0."


def checkpoint(told: Any, scale: str = "F32") -> Checkpoint:
    """Two matrices in int8 with their scales, and one that is kept in bf16."""
    made = {
        f"{LAYER}self_attn.o_proj.weight": ("I8", (8, 8)),
        f"{LAYER}self_attn.o_proj.weight_scale": (scale, (8, 1)),
        f"{LAYER}mlp.up_proj.weight": ("I8", (8, 8)),
        f"{LAYER}mlp.up_proj.weight_scale": (scale, (8, 1)),
        f"{LAYER}self_attn.kv_b_proj.weight": ("BF16", (8, 8)),
    }
    tensors = {name: Tensor(name, *one, "a.safetensors", 0, 64) for name, one in made.items()}
    return Checkpoint(Path(), {"quantization_config": told}, tensors, [], {}, {})


def ours() -> dict[str, Any]:
    made: dict[str, Any] = w8a8.new_config(checkpoint({}))["quantization_config"]
    return made


def group(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told["config_groups"]["group_0"]
    return found


def rename(told: dict[str, Any]) -> None:
    told["config_groups"] = {"W8A8": group(told)}


def split(told: dict[str, Any]) -> None:
    one = group(told)
    told["config_groups"] = {
        "attention": {**one, "targets": ["re:.*self_attn.*"]},
        "rest": {**one, "targets": [f"{LAYER}mlp.up_proj"], "format": "int-quantized"},
    }


def pattern(told: dict[str, Any]) -> None:
    told["ignore"] = ["lm_head", "re:.*kv_b_proj$"]


def defaults(told: dict[str, Any]) -> None:
    for part in ("weights", "input_activations"):
        for key in ("num_bits", "type", "symmetric", "observer", "group_size", "actorder"):
            group(told)[part].pop(key, None)
    del group(told)["weights"]["dynamic"]
    told.update(version="0.20.1", sparsity_config={}, transform_config={})


@pytest.mark.parametrize("change", [rename, split, pattern, defaults, lambda told: None])
def test_what_the_format_allows_is_taken(change: Callable[[dict[str, Any]], None]) -> None:
    told = ours()
    change(told)
    assert structure.native(checkpoint(told), None) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(ignore=[]),  # kv_b_proj would be looked for in int8
        lambda told: told.update(ignore=["re:.*"]),  # int8 would be loaded as bf16
        lambda told: told.update(ignore=["re:(", f"{LAYER}mlp.up_proj"]),
        lambda told: group(told).update(targets=["re:.*mlp.*"]),
        lambda told: group(told)["weights"].update(symmetric=False),
        lambda told: group(told)["weights"].update(num_bits=4),
        lambda told: group(told)["weights"].update(strategy="tensor"),
        lambda told: group(told)["input_activations"].update(dynamic=False),
        lambda told: told.update(format="pack-quantized"),
        lambda told: told.update(config_groups=None),
        lambda told: told.update(config_groups={"a": None}),
        lambda told: told.update(ignore=5),
        lambda told: group(told).update(targets=True),
        lambda told: told.update(ignore=["re:a{99999999999}"]),
        lambda told: told.update(ignore=["re:" + "(" * 9999 + ")" * 9999]),
    ],
)
def test_what_the_tensors_are_not_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    told = ours()
    change(told)
    assert structure.native(checkpoint(told), None)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_scales_of_16_bits(dtype: str) -> None:
    found = checkpoint(ours(), dtype)
    matrix = found.tensors[f"{LAYER}mlp.up_proj.weight"]
    assert structure._scale(found, matrix, structure.NATIVE) == []


@pytest.mark.parametrize("where", ["ignore", "targets"])
def test_a_pattern_that_would_never_end_is_refused(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """re:(.+)+!$ tries every way to cut a name: 2^40 of them for one of 40 characters."""
    monkeypatch.setattr(structure, "_MATCH_S", 2.0)
    told = ours()
    (told if where == "ignore" else group(told))[where] = ["re:(.+)+!$"]
    [problem] = structure.native(checkpoint(told), None)
    assert "patterns (re:) take longer than 2 s" in problem
