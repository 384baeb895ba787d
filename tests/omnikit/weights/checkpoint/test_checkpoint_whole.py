"""Whether a checkpoint is whole, and what tells it from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_case import make

from omnikit.weights.checkpoint import headers
from omnikit.weights.msmodelslim import edits

SECOND = "model-00002-of-000002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "m")


def test_a_whole_one_and_its_size(folder: Path) -> None:
    assert headers.problems(folder) == []
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert headers.written(folder) == (2, sum(sizes))


def test_shards_that_are_missing_empty_or_links_to_nothing(folder: Path) -> None:
    first = (folder / "model-00001-of-000002.safetensors").stat().st_size
    (folder / SECOND).write_bytes(b"")
    expected = [f"1 of 2 shards missing or empty: {SECOND}"]
    assert headers.problems(folder) == expected
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("nowhere")
    assert headers.problems(folder) == expected
    assert headers.written(folder) == (2, first)
    assert headers.fingerprint(folder)["shards"]


DAMAGED = {
    "cut by 1000 bytes": (lambda data: data[:-1000], "the file is cut"),
    "cut to 5 bytes": (lambda data: data[:5], "is no safetensors file, or cut"),
    "zero bytes": (lambda data: bytes(len(data)), "is no safetensors file, or cut"),
    "more behind it": (lambda data: data + b"x", "the file is too long"),
    "a pointer of git lfs": (
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        "or cut",
    ),
}


@pytest.mark.parametrize("change, said", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_shard_is_named_with_what_is_wrong(change, said: str, folder: Path) -> None:
    (folder / SECOND).write_bytes(change((folder / SECOND).read_bytes()))
    [problem] = headers.problems(folder)
    assert problem.startswith(f"1 of 2 shards damaged: {SECOND} ") and said in problem


def test_a_shard_in_anothers_place_is_told_by_the_index(folder: Path) -> None:
    first = folder / "model-00001-of-000002.safetensors"
    (folder / SECOND).write_bytes(first.read_bytes())
    [problem] = headers.problems(folder)
    assert f"1 of 2 shards damaged: {SECOND} has no " in problem
    assert "more tensors of the index" in problem


def test_without_config_and_with_odd_indexes(folder: Path) -> None:
    (folder / "config.json").unlink()
    index = folder / "model.safetensors.index.json"
    for text in ("[]", "{", '{"weight_map": 3}'):
        index.write_text(text)
        problems = headers.problems(folder)
        assert problems[0] == "there is no config.json"
        assert problems[1].startswith("model.safetensors.index.json cannot be read")
    index.unlink()
    assert "expected one *.safetensors.index.json, found none" in headers.problems(folder)
    assert headers.problems(folder / "x") == [f"there is no folder {folder}/x"]


def test_our_edits_leave_the_fingerprint_and_other_weights_do_not(folder: Path) -> None:
    before = headers.fingerprint(folder)
    edits.apply(edits.plan(folder, edits.before()))
    assert headers.fingerprint(folder) == before
    (folder / SECOND).write_bytes(bytes(2001))
    after = headers.fingerprint(folder)
    assert [name for name in before if before[name] != after[name]] == ["shards"]
