"""Folders of safetensors files as they describe themselves, and what can be wrong with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from omnikit.errors import InputError
from omnikit.weights import checkpoint
from omnikit.weights import small_deepseek as small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "model")


def test_every_tensor_is_found_with_its_place(folder: Path) -> None:
    found = checkpoint.read(folder)
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
    assert checkpoint.read(tmp_path).shards == ["model.safetensors"]


SHARD = "model-00002-of-000003.safetensors"


def _cut(folder: Path) -> None:
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[:-100])


def _longer(folder: Path) -> None:
    with (folder / SHARD).open("ab") as file:
        file.write(b"more")


def _header(text: bytes, folder: Path) -> None:
    (folder / SHARD).write_bytes(struct.pack("<Q", len(text)) + text)


def _strange(folder: Path) -> None:
    index = json.loads((folder / checkpoint.INDEX).read_text())
    del index["weight_map"]["model.norm.weight"]
    (folder / checkpoint.INDEX).write_text(json.dumps(index))


def _outside(folder: Path) -> None:
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / checkpoint.INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (_cut, SHARD, "the file is cut"),
        (_longer, SHARD, "the file is too long"),
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
        checkpoint.read(folder)
    assert where in str(caught.value) and what in str(caught.value)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    _cut(folder)
    (folder / SHARD.replace("2-of", "1-of")).unlink()
    with pytest.raises(InputError, match=r"(?s)00001-of.*missing.*00002-of.*cut"):
        checkpoint.read(folder)


def test_a_folder_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="neither"):
        checkpoint.read(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        checkpoint.read(tmp_path / "no")
