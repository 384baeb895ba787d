"""What every result of msmodelslim must have; the whole way is in tests/test_run_msmodelslim.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from omnikit.weights.loadable import small_deepseek
from omnikit.weights.msmodelslim import run

SHARD = "quant_model_weight_w8a8_dynamic-00001-of-00001.safetensors"
MATRIX = "model.layers.0.mlp.gate_proj.weight"


def made(folder: Path, scales: int = 4, layers: int = 1) -> Path:
    """A result with one int8 matrix, and a norm in each further layer."""
    folder.mkdir()
    tensors = {MATRIX: ("I8", np.ones((4, 2), np.int8))}
    if scales:
        tensors[f"{MATRIX}_scale"] = ("F32", np.ones((scales, 1), np.float32))
    for layer in range(1, layers):
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = ("F32", np.ones(2, np.float32))
    small_deepseek.save(tensors, folder / SHARD)
    index = {"weight_map": dict.fromkeys(tensors, SHARD)}
    (folder / "quant_model_weight_w8a8_dynamic.safetensors.index.json").write_text(
        json.dumps(index)
    )
    (folder / "config.json").write_text('{"num_hidden_layers": 1}')
    return folder


def test_a_whole_one_also_where_the_source_is_gone(tmp_path: Path) -> None:
    folder = made(tmp_path / "r")
    assert run.problems(tmp_path / "gone", folder) == []
    assert run.layers(folder) == 1
    (folder / SHARD).unlink()
    [problem] = run.problems(tmp_path / "gone", folder)
    assert problem.startswith("1 of 1 shards missing or empty")


def test_scales_that_are_missing_or_too_few(tmp_path: Path) -> None:
    for count in (0, 1):
        folder = made(tmp_path / f"r{count}", scales=count)
        [problem] = run.problems(tmp_path, folder)
        assert problem == f"1 of 1 int8 matrices have no scale for each row: {MATRIX}"


def test_layers_that_the_source_or_its_own_configuration_counts(tmp_path: Path) -> None:
    folder = made(tmp_path / "r", layers=2)
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"num_hidden_layers": 4}')
    expected = ["of 4 layers these have no tensor: 2, 3"]
    assert run.problems(source, folder) == expected
    (folder / "config.json").write_text('{"num_hidden_layers": 3}')
    expected = ["of 3 layers these have no tensor: 2"]
    assert run.problems(tmp_path / "gone", folder) == expected
