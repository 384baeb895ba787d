"""A downloaded checkpoint held against its own index and headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import pytest
from omnikit.errors import ActionError
from omnikit.weights import download_check
from omnikit.weights import small_deepseek as small
from omnikit.weights.checkpoint import INDEX

SHARD = "model-00002-of-000003.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "model")


def check(folder: Path, left_out: tuple[str, ...] = ()) -> int:
    names = [path.name for path in folder.iterdir()]
    return download_check.check(names, left_out, lambda name: folder / name, "hub:model")


def test_a_whole_checkpoint_is_good(folder: Path) -> None:
    assert check(folder) == 3


def test_shards_that_patterns_leave_out_are_not_missed(folder: Path) -> None:
    (folder / SHARD).unlink()
    assert check(folder, (SHARD,)) == 2


def _index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def _cut(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / SHARD).unlink(), f"{SHARD} is missing, the index names it"),
        (_cut, f"{SHARD} has .* the file is cut"),
        (lambda folder: (folder / SHARD).write_bytes(b""), "is no safetensors file, or cut"),
        (lambda folder: _index(folder, lambda m: m.update(more=SHARD)), f"{SHARD} has no more"),
        (lambda folder: _index(folder, lambda m: m.pop("model.norm.weight")), "does not say"),
        (lambda folder: _index(folder, lambda m: m.clear()), "has no weight_map"),
        (lambda folder: (folder / INDEX).write_text("<html>"), "cannot be read"),
    ],
)
def test_every_fault_is_named(folder: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(folder)
    with pytest.raises(ActionError, match=f"hub:model: is no whole checkpoint: .*{what}"):
        check(folder)
