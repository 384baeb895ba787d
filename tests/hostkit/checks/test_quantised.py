"""Weights, their description, and what the servers are told: together or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy
import pytest
from check_cases import look, one, parameters
from safetensors import serialize_file

from hostkit.checks import model as checks_model

INT8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
FLOAT = {"quant_method": "compressed-tensors", "format": "float-quantized"}
MODELSLIM = "quant_model_description_w8a8_dynamic.json"


def found(
    folder: Path, kind: str, described: Any, files: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """The check of a model with matrices of a type, and a bf16 one beside them."""
    model = folder / "model"
    model.mkdir()
    config = {"model_type": "deepseek_v3"}
    if described is not None:
        config["quantization_config"] = described
    (model / "config.json").write_text(json.dumps(config))
    (model / "tokenizer.json").write_text("{}")
    for name in files:
        (model / name).write_text("{}")
    width = {"int8": 1, "float8_e4m3fn": 1, "bfloat16": 2, "int32": 4}
    tensors = {}
    for name, dtype, shape in (
        ("a.weight", kind, [8, 4]),
        ("b.weight", kind, [8, 4]),
        ("norm.weight", "bfloat16", [8]),
        ("gate.weight", "bfloat16", [8, 4]),
    ):
        data = numpy.zeros(int(numpy.prod(shape)) * width[dtype], numpy.uint8).tobytes()
        tensors[name] = {"dtype": dtype, "shape": shape, "data": data}
    serialize_file(tensors, str(model / "model.safetensors"))
    paths = {"model": str(model), "log": None, "code": None}
    group = look(checks_model.look, parameters(folder, **{"paths": paths, **more}))
    return one(group, "model.quantisation")


@pytest.mark.parametrize(
    ("kind", "described", "files", "says"),
    [
        ("int8", INT8, (), "2 INT8 matrices; described as: compressed-tensors"),
        ("int8", None, (MODELSLIM,), f"2 INT8 matrices; described as: {MODELSLIM}"),
        ("float8_e4m3fn", FP8, (), "2 FP8 matrices; described as: fp8"),
        ("bfloat16", None, (), "no INT8 or FP8 matrices; described as: not quantised"),
        ("int32", {"quant_method": "gptq"}, (), "no INT8 or FP8 matrices; described as: gptq"),
    ],
)
def test_what_belongs_together(tmp_path, kind, described, files, says) -> None:
    entry = found(tmp_path, kind, described, files)
    assert (entry["state"], entry["found"]) == ("ok", says)


@pytest.mark.parametrize("described", [None, {}, "int8", []])
@pytest.mark.parametrize(("kind", "shown"), [("int8", "INT8"), ("float8_e4m3fn", "FP8")])
def test_quantised_weights_that_nothing_describes(tmp_path, kind, shown, described) -> None:
    entry = found(tmp_path, kind, described)
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"].startswith(f"2 {shown} matrices, but neither quantization_config")
    assert "invoke convert-weights writes it" in entry["todo"]


@pytest.mark.parametrize(
    ("kind", "described", "shown"),
    [
        ("bfloat16", FP8, "FP8"),
        ("int8", FP8, "FP8"),
        ("bfloat16", INT8, "INT8"),
        ("float8_e4m3fn", INT8, "INT8"),
        ("int8", FLOAT, "FP8"),
    ],
)
def test_a_description_of_other_weights(tmp_path, kind, described, shown) -> None:
    entry = found(tmp_path, kind, described)
    assert entry["state"] == "failed"
    says = described["quant_method"]
    assert entry["found"] == f"config.json says {says}, but no matrix is {shown}"


@pytest.mark.parametrize("described", [FP8, FLOAT])
def test_an_npu_gets_no_fp8(tmp_path, described) -> None:
    entry = found(tmp_path, "float8_e4m3fn", described, device_kind="npu")
    assert (entry["state"], entry["found"]) == (
        "failed",
        "2 FP8 matrices: Ascend A2 and A3 do not compute FP8",
    )
    model = tmp_path / "model"
    assert f"invoke convert-weights --source {model} --target {model}-w8a8" in entry["todo"]


@pytest.mark.parametrize(
    ("described", "files", "told", "says"),
    [
        (INT8, (), ["ascend"], "told --quantization ascend, config.json says compressed-tensors"),
        (None, (MODELSLIM,), [], "no server is told --quantization ascend"),
        (None, (MODELSLIM,), ["ascend"], None),
        (INT8, (MODELSLIM,), [], None),
        (INT8, (), ["compressed-tensors"], None),
    ],
)
def test_what_the_servers_are_told(tmp_path, described, files, told, says: Optional[str]) -> None:
    entry = found(tmp_path, "int8", described, files, quantization=told, device_kind="npu")
    assert entry["state"] == ("warning" if says else "ok")
    assert says is None or says in entry["found"]


def test_damaged_weights_are_not_judged(tmp_path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    paths = {"model": str(model), "log": None, "code": None}
    group = look(checks_model.look, parameters(tmp_path, paths=paths))
    assert "model.quantisation" not in [entry["id"] for entry in group.checks]
