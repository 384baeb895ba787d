"""Folders of safetensors files as they describe themselves, and what can be wrong with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Callable

import pytest
from safetensors import SafetensorError, safe_open

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "model")


def test_every_tensor_is_found_with_its_place(folder: Path) -> None:
    found = headers.read(folder)
    made = small.make().tensors
    assert found.tensors.keys() == made.keys() and len(found.shards) == 3
    for name, (dtype, array) in made.items():
        tensor = found.tensors[name]
        assert (tensor.dtype, tensor.shape) == (dtype, array.shape)
        data = (folder / tensor.file).read_bytes()[tensor.start : tensor.end]
        assert data == array.tobytes()


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    small.save(small.make().tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert headers.read(tmp_path).shards == ["model.safetensors"]


def test_an_index_of_another_name_is_read_where_it_is_the_only_one(folder: Path) -> None:
    """As msmodelslim names it; and it is no file that a conversion copies."""
    odd = folder / "quant_model_weight_w8a8_dynamic.safetensors.index.json"
    (folder / headers.INDEX).rename(odd)
    assert headers.read(folder).tensors.keys() == small.make().tensors.keys()
    assert odd not in w8a8.other_files(folder)
    more = folder / "more.safetensors.index.json"
    more.write_text("{}")
    with pytest.raises(InputError, match="several indexes") as caught:
        headers.read(folder)
    assert odd.name in caught.value.what and more.name in caught.value.what
    odd.rename(folder / headers.INDEX)
    assert len(headers.read(folder).shards) == 3  # the usual name comes first


def test_a_damaged_folder_can_be_looked_at(folder: Path) -> None:
    _cut(folder)
    found = headers.look(folder)
    assert [SHARD in str(fault) for fault in found.faults] == [True]
    assert found.index.keys() == small.make().tensors.keys() > found.tensors.keys()


SHARD = "model-00002-of-000003.safetensors"


def _cut(folder: Path) -> None:
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[:-100])


def _longer(folder: Path) -> None:
    with (folder / SHARD).open("ab") as file:
        file.write(b"more")


def _header(text: bytes, folder: Path) -> None:
    (folder / SHARD).write_bytes(struct.pack("<Q", len(text)) + text)


def _rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The header changed, at its length, the data as they were."""
    data = (folder / SHARD).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    told = json.loads(data[8 : 8 + length])
    change(told)
    text = json.dumps(told, separators=(",", ":")).encode()
    assert len(text) <= length
    (folder / SHARD).write_bytes(data[:8] + text.ljust(length) + data[8 + length :])


def _overlap(folder: Path) -> None:
    """Two matrices of one shape in one place: the library refuses that too."""

    def change(told: dict[str, Any]) -> None:
        names = [name for name in told if name.endswith("gate_proj.weight") and "experts" in name]
        told[names[1]]["data_offsets"] = told[names[0]]["data_offsets"]

    _rewritten(folder, change)
    with pytest.raises(SafetensorError, match=r"(?i)invalid.?offset"):
        safe_open(folder / SHARD, framework="numpy").__enter__()


def _negative(folder: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        one = next(one for name, one in told.items() if len(one.get("shape", ())) == 2)
        one["shape"] = [-size for size in one["shape"]]
        del told["__metadata__"]  # room for the signs

    _rewritten(folder, change)


def _strange(folder: Path) -> None:
    index = json.loads((folder / headers.INDEX).read_text())
    del index["weight_map"]["model.norm.weight"]
    (folder / headers.INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", [f"{'a' * 300}.safetensors", "a\0.safetensors", "\ud800", 5])
def test_an_index_that_names_what_can_be_no_file(folder: Path, name: object) -> None:
    (folder / headers.INDEX).write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(InputError, match="no name of a shard"):
        headers.read(folder)
    assert "no file's name" in headers.problems(folder)[-1]


def _outside(folder: Path) -> None:
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / headers.INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (_cut, SHARD, "the file is cut"),
        (_longer, SHARD, "the file is too long"),
        (_overlap, SHARD, "broken header"),
        (_negative, SHARD, "broken header"),
        (lambda folder: _header(b"[" * 200_000, folder), SHARD, "broken header"),
        (lambda folder: (folder / SHARD).unlink(), SHARD, "is missing"),
        (lambda folder: (folder / SHARD).write_bytes(b"x"), SHARD, "no safetensors file"),
        (lambda folder: (folder / SHARD).write_bytes(b"<html>" * 99), SHARD, "no safetensors"),
        (lambda folder: _header(b"{]", folder), SHARD, "broken header"),
        (lambda folder: _header(b'{"a": 1}', folder), SHARD, "broken header"),
        (lambda folder: _header(b"{}", folder), SHARD, "which the index says that it holds"),
        (_strange, "safetensors", "the index does not name it"),
        (_outside, "index.json", "no name of a shard"),
        (lambda folder: (folder / "config.json").unlink(), "config.json", "is missing"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json", "no JSON object"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(
    folder: Path, damage: object, where: str, what: str
) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(InputError) as caught:
        headers.read(folder)
    assert where in str(caught.value) and what in str(caught.value)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    _cut(folder)
    (folder / SHARD.replace("2-of", "1-of")).unlink()
    with pytest.raises(InputError, match=r"(?s)00001-of.*missing.*00002-of.*cut"):
        headers.read(folder)


def test_a_folder_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="neither"):
        headers.read(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        headers.read(tmp_path / "no")
