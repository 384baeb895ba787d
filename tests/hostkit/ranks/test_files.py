from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from hostkit.ranks import files


def test_files_are_created_rewritten_or_left_alone(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    assert files.save_all(folder, {"a": "1", "b": "2"}, dry_run=False) == {
        "a": "created",
        "b": "created",
    }
    before = (folder / "a").stat()
    assert files.save_all(folder, {"a": "1", "b": "3"}, dry_run=False) == {
        "a": "unchanged",
        "b": "rewritten",
    }
    after = (folder / "a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (folder / "b").read_text() == "3"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path: Path):
    files.save_all(tmp_path, {"a": "old" * 1000}, dry_run=False)
    with (tmp_path / "a").open() as reader:
        files.save_all(tmp_path, {"a": "new"}, dry_run=False)
        assert reader.read() == "old" * 1000
    assert (tmp_path / "a").read_text() == "new"


def test_a_failure_half_way_leaves_the_old_files_and_no_rest(tmp_path: Path):
    files.save_all(tmp_path, {"a": "old"}, dry_run=False)
    with pytest.raises(ActionError) as caught:
        files.save_all(tmp_path, {"a": "new", "no/folder": "x"}, dry_run=False)
    assert caught.value.where == str(tmp_path)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_dry_run_writes_nothing(tmp_path: Path):
    folder = tmp_path / "new"
    assert files.save_all(folder, {"a": "1"}, dry_run=True) == {"a": "created"}
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_wrong_input(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        files.save_all(tmp_path / "file" / "x", {"a": "1"}, dry_run=False)
    assert "--save-dir" in str(caught.value.todo)


def test_files_that_are_missing_or_no_json_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="No such file") as caught:
        files.load(tmp_path / "x.json")
    assert caught.value.where == str(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        files.load(tmp_path / "y.json")
