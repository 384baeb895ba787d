"""A model's folder, with real safetensors files, whole and broken."""

from __future__ import annotations

import json
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Optional

import numpy
import pytest
from check_cases import ids, limits, look, one, parameters
from safetensors import serialize_file
from safetensors.numpy import save_file

from hostkit.checks import model as checks_model
from hostkit.checks.model import code_files, header, manifest

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three shards, with code of its own."""
    made = tmp_path / "model"
    made.mkdir()
    auto = {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}
    (made / "config.json").write_text(json.dumps({"model_type": "deepseek_v3", "auto_map": auto}))
    (made / "configuration_deepseek.py").write_text("class DeepseekV3Config: ...\n")
    (made / "tokenizer.json").write_text("{}")
    for number, name in enumerate(SHARDS):
        tensors = {f"w{number}.{i}": numpy.ones((8, 8), numpy.float32) for i in (0, 1)}
        save_file(tensors, made / name, metadata={"format": "pt"})
    weight_map = {f"w{n}.{i}": name for n, name in enumerate(SHARDS) for i in (0, 1)}
    (made / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return made


def model(folder: Path, **more):
    paths = {"model": str(folder), "log": None, "code": None}
    return look(checks_model.look, parameters(folder.parent, **{"paths": paths, **more}))


def weights(folder: Path) -> dict:
    return one(model(folder), "model.weights")


def test_a_whole_model(folder):
    group = model(folder)
    assert [(e["id"], e["state"]) for e in group.checks] == [
        ("model.folder", "ok"),
        ("model.weights", "ok"),
        ("model.quantisation", "ok"),
    ]
    assert one(group, "model.folder")["found"] == f"deepseek_v3 at {folder}"
    assert weights(folder)["found"] == "3 files, 6 tensors, sizes as their headers say"
    assert len(group.facts["manifest_sha256"]) == 64


def test_a_shard_that_is_cut_off_says_both_sizes(folder):
    shard = folder / SHARDS[1]
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size - 1)
    entry = weights(folder)
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert (
        entry["found"]
        == f"{SHARDS[1]} has {size - 1} bytes, its header describes {size}: the file is cut"
    )
    assert f"rsync -a --checksum SOURCE/ {folder}/" in entry["todo"]


def test_a_shard_that_is_cut_off_in_its_header(folder):
    with (folder / SHARDS[1]).open("r+b") as file:
        file.truncate(40)
    assert "is no safetensors file, or cut" in weights(folder)["found"]


def test_a_shard_that_grew(folder):
    with (folder / SHARDS[0]).open("ab") as file:
        file.write(b"x")
    assert "its header describes" in weights(folder)["found"]


def test_a_missing_shard(folder):
    (folder / SHARDS[2]).unlink()
    entry = weights(folder)
    assert (entry["state"], entry["found"]) == ("failed", f"{SHARDS[2]} is missing")


def test_every_broken_shard_is_named(folder):
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[1]).write_bytes(b"")
    assert weights(folder)["found"] == (
        f"{SHARDS[0]} is missing; {SHARDS[1]} is no safetensors file, or cut"
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"<html><body>404</body></html>", "is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (struct.pack("<Q", 3) + b"{{{", "has a broken header"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "has a broken header"),
        (struct.pack("<Q", 2) + b"[]", "has a broken header"),
    ],
)
def test_files_that_are_something_else(folder, data, found):
    (folder / SHARDS[0]).write_bytes(data)
    assert found in weights(folder)["found"]


def test_a_tensor_of_the_index_that_its_file_lacks(folder):
    save_file({"other": numpy.ones(3)}, folder / SHARDS[0])
    assert weights(folder)["found"] == f"{SHARDS[0]} lacks 2 tensors of the index, such as w0.0"


def test_an_index_that_cannot_be_read(folder):
    (folder / INDEX).write_text("{")
    assert weights(folder)["found"].startswith(f"{INDEX} is no JSON")
    (folder / INDEX).write_text("{}")
    assert weights(folder)["found"] == f"{INDEX} has no weight_map"


def test_shards_without_an_index(folder):
    (folder / INDEX).unlink()
    assert weights(folder)["found"] == f"no {INDEX}, though there is {SHARDS[0]}"


def test_a_single_file_needs_no_index(folder):
    for name in [*SHARDS, INDEX]:
        (folder / name).unlink()
    assert weights(folder)["found"] == "no *.safetensors"
    save_file({"a": numpy.ones(3)}, folder / "model.safetensors")
    assert weights(folder)["found"] == "1 files, 1 tensors, sizes as their headers say"


def test_weights_of_another_kind_are_not_judged(folder):
    for name in [*SHARDS, INDEX]:
        (folder / name).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    entry = weights(folder)
    assert (entry["state"], entry["required"]) == ("unknown", False)
    assert "pytorch_model.bin" in entry["found"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("config.json", "no config.json"),
        ("configuration_deepseek.py", "no configuration_deepseek.py, which config.json names"),
        ("tokenizer.json", "no tokenizer ("),
    ],
)
def test_files_that_are_not_there(folder, name, found):
    (folder / name).unlink()
    entry = one(model(folder), "model.folder")
    assert entry["state"] == "failed"
    assert entry["found"].startswith(found)


def test_a_configuration_without_a_kind(folder):
    (folder / "config.json").write_text("{}")
    assert one(model(folder), "model.folder")["found"] == "config.json has no model_type"


@pytest.mark.parametrize(
    ("auto", "files"),
    [
        ({"AutoConfig": "a.B", "AutoModel": "c.D"}, ["a.py", "c.py"]),
        ({"AutoTokenizer": ["a.B", None]}, ["a.py"]),
        ({"AutoConfig": "someone/repository--a.B"}, []),
        (None, []),
    ],
)
def test_code_that_a_configuration_names(auto, files):
    assert code_files({"auto_map": auto}) == files


@pytest.mark.parametrize(("generated", "state"), [(True, "ok"), (False, "failed")])
def test_no_model_at_all(tmp_path, generated, state):
    group = model(tmp_path / "none", model_generated=generated)
    assert ids(group) == ["model.folder"]
    entry = one(group, "model.folder")
    assert entry["state"] == state
    assert ("the toolkit makes it" in entry["found"]) == generated
    assert "manifest_sha256" not in group.facts


def test_an_empty_folder_is_no_model(tmp_path):
    (tmp_path / "model").mkdir()
    entry = one(model(tmp_path / "model"), "model.folder")
    assert entry["found"] == f"{tmp_path}/model is empty or no folder"


def test_a_dead_file_system_is_named(folder, monkeypatch):
    """A double: a dead NFS server cannot be had here. The child that asks it never ends."""
    released = threading.Event()
    monkeypatch.setattr("hostkit.base.run.run", lambda *_, **__: released.wait(60))
    monkeypatch.setattr("hostkit.checks.base._DYING_S", 0.1)
    try:
        entry = one(model(folder, checks=limits(timeout_s=0.1)), "model.folder")
        assert entry["state"] == "failed"
        assert entry["found"] == f"no answer within 0.1 s from: stat --file-system {folder}"
    finally:
        released.set()


def test_the_manifest_tells_models_apart_by_name_size_index_and_config(folder, tmp_path):
    first = manifest(folder)
    (folder / "README.md").write_text("not part of it")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert manifest(folder) == first
    changes = [
        lambda: (folder / "tokenizer.json").write_text("{} "),
        lambda: (folder / "added.safetensors").write_bytes(b"x"),
        lambda: (folder / INDEX).write_text((folder / INDEX).read_text().replace("w0.0", "w9.0")),
        lambda: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace("_v3", "_v2")
        ),
    ]
    seen = {first}
    for change in changes:
        change()
        seen.add(manifest(folder))
    assert len(seen) == 5


def test_links_to_shards_are_followed(folder, tmp_path):
    """As in the cache of the Hugging Face hub."""
    real = tmp_path / "blob"
    (folder / SHARDS[0]).rename(real)
    (folder / SHARDS[0]).symlink_to(real)
    before = manifest(folder)
    assert weights(folder)["state"] == "ok"
    real.write_bytes(real.read_bytes() + b"x")
    assert manifest(folder) != before


def test_a_header_is_read_and_not_the_data(tmp_path):
    path = tmp_path / "large.safetensors"
    text = json.dumps(
        {"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    ).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        try:
            file.truncate(8 + len(text) + (1 << 40))  # sparse
        except OSError:
            pytest.skip("this disk has no files of 1 TiB")
    tensors, problem = header(path)
    assert (list(tensors), problem) == (["a"], None)
    assert sys.getsizeof(tensors) < 10_000


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
