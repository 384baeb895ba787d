"""A downloaded checkpoint held against its own index and headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Optional

import pytest

from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint.headers import INDEX
from omnikit.weights.download import plan as download_plan
from omnikit.weights.download.types import Listing, RemoteFile
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow

SHARD = "model-00002-of-000003.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "model")


def check(folder: Path, left_out: tuple[str, ...] = ()) -> int:
    names = [path.name for path in folder.iterdir()]
    return download_plan.check(
        names, lambda name: name not in left_out, lambda name: folder / name, "hub:model"
    )


def listing(names: list[str], lost: Optional[dict[str, str]] = None) -> Listing:
    return Listing("hub:model", "", [RemoteFile(name, "") for name in names], lost=lost or {})


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([], r"it lacks config\.json; it has no files"),
        (["README.md"], r"it lacks config\.json; it has README\.md"),
        (["sub/config.json", SHARD], r"it lacks config\.json; it has sub/config\.json, model-"),
        (["config.json", SHARD], f"it lacks {INDEX}, which tells how many files like {SHARD}"),
        (["config.json", f"sub/{SHARD}"], r"it lacks weights \(\*\.safetensors\)"),
        ([f"{one}.json" for one in range(9)], r"4\.json and 4 more"),
    ],
)
def test_a_list_that_is_none_of_a_checkpoint_is_told_with_what_is_there(
    names: list[str], what: str
) -> None:
    with pytest.raises(ActionError, match=f"hub:model: is no whole checkpoint: .*{what}"):
        download_plan.check_list(listing(names), True, lambda name: True)
    download_plan.check_list(listing(names), False, lambda name: True)


@pytest.mark.parametrize(
    "names",
    [
        ["config.json", "model.safetensors"],
        ["config.json", SHARD, INDEX],
        ["config.json", INDEX],  # its shards are held against the list by check_index
        ["config.json", "w8a8-00001-of-00002.safetensors", "w8a8.safetensors.index.json"],
        ["config.json", "pytorch_model.bin"],
    ],
)
def test_lists_of_checkpoints(names: list[str]) -> None:
    download_plan.check_list(listing(names), True, lambda name: True)


def test_a_file_that_the_source_names_and_does_not_give_is_told_unless_it_is_left_out() -> None:
    found = listing(
        ["config.json", "model.safetensors"], {"vocab.json": "HTTP 403, its list has it"}
    )
    for whole in (True, False):
        with pytest.raises(
            ActionError, match=r"does not give 1 of its files: vocab\.json \(HTTP 403"
        ):
            download_plan.check_list(found, whole, lambda name: True)
        download_plan.check_list(found, whole, lambda name: name != "vocab.json")


def test_the_index_is_held_against_the_list() -> None:
    text = json.dumps({"weight_map": {"a": "one", "b": "two", "c": "three"}}).encode()
    download_plan.check_index(text, listing(["one", "two", "three"]), lambda name: True)
    download_plan.check_index(text, listing(["one"]), lambda name: name == "one")
    with pytest.raises(ActionError, match="whole checkpoint: three is missing, the index names it"):
        download_plan.check_index(text, listing(["one", "two"]), lambda name: True)
    for text in (b"{}", b"<html>", b'{"weight_map": {}}', b'{"weight_map": []}', b"[]"):
        with pytest.raises(ActionError, match="has no weight_map"):
            download_plan.check_index(text, listing([]), lambda name: True)


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
        (lambda folder: (folder / INDEX).write_text("<html>"), "has no weight_map"),
    ],
)
def test_every_fault_is_named(folder: Path, damage: Callable[[Path], None], what: str) -> None:
    damage(folder)
    with pytest.raises(ActionError, match=f"hub:model: is no whole checkpoint: .*{what}"):
        check(folder)
