"""Whether a checkpoint is whole, and what tells it from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_case import make
from omnikit.weights import checkpoint_edits, checkpoint_files, edited_files

SECOND = "model-00002-of-000002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "m")


def test_a_whole_one_and_its_size(folder: Path) -> None:
    assert checkpoint_files.problems(folder) == []
    assert checkpoint_files.written(folder) == (2, 3000)


def test_shards_that_are_missing_empty_or_links_to_nothing(folder: Path) -> None:
    (folder / SECOND).write_bytes(b"")
    expected = [f"1 of 2 shards missing or empty: {SECOND}"]
    assert checkpoint_files.problems(folder) == expected
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("nowhere")
    assert checkpoint_files.problems(folder) == expected
    assert checkpoint_files.written(folder) == (2, 1000)


def test_without_config_and_with_odd_indexes(folder: Path) -> None:
    (folder / "config.json").unlink()
    index = folder / "model.safetensors.index.json"
    for text in ("[]", "{", '{"weight_map": 3}'):
        index.write_text(text)
        problems = checkpoint_files.problems(folder)
        assert problems[0] == "there is no config.json"
        assert problems[1].startswith("model.safetensors.index.json cannot be read")
    index.unlink()
    assert "expected one *.safetensors.index.json, found none" in checkpoint_files.problems(folder)
    assert checkpoint_files.problems(folder / "x") == [f"there is no folder {folder}/x"]


def test_our_edits_leave_the_fingerprint_and_other_weights_do_not(folder: Path) -> None:
    before = checkpoint_files.fingerprint(folder)
    edited_files.apply(edited_files.plan(folder, checkpoint_edits.before()))
    assert checkpoint_files.fingerprint(folder) == before
    (folder / SECOND).write_bytes(bytes(2001))
    after = checkpoint_files.fingerprint(folder)
    assert [name for name in before if before[name] != after[name]] == ["shards"]
