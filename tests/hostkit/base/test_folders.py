"""Folders that other users can write, replace or have put there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hostkit.base import folders

NOBODY = 65534
pytestmark = pytest.mark.needs("mount", root=True)


@pytest.fixture(autouse=True)
def usual_rights() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_what_is_missing_is_made_and_can_be_passed_through_not_listed(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    assert folders.problem(str(made)) == "" and not made.exists()
    assert folders.make(str(made)) == ""
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o711
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    assert folders.make(str(made)) == "" and stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o750)
    assert folders.make(str(made), None) == "" and stat.S_IMODE(made.stat().st_mode) == 0o750


def test_removing_takes_an_empty_folder_above_along_and_no_other(tmp_path: Path) -> None:
    for name in ("a/p0", "a/p1"):
        folders.make(str(tmp_path / name))
    folders.remove(str(tmp_path / "a" / "p0"))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["p1"]
    folders.remove(str(tmp_path / "a" / "p1"))
    assert not (tmp_path / "a").exists()


def test_below_another_users_folder_nothing_is_made_or_removed(tmp_path: Path) -> None:
    his = tmp_path / "his"
    (his / "p0").mkdir(parents=True)
    os.chown(his, NOBODY, NOBODY)
    assert "belongs to" in folders.problem(str(his / "p0"))
    assert "belongs to" in folders.make(str(his / "p1")) and not (his / "p1").exists()
    folders.remove(str(his / "p0"))
    assert (his / "p0").is_dir()
    # Root was told to work there: that is his choice, as long as nobody else can write.
    assert folders.problem(str(his / "p0"), ours=False) == ""
    tmp_path.chmod(0o1777)
    assert "belongs to" in folders.problem(str(his / "p0"), ours=False)


@pytest.mark.parametrize(("mode", "ours", "fault"), [(0o777, True, 1), (0o777, False, 1)])
def test_who_else_may_write(mode: int, ours: bool, fault: int, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    assert bool(folders.problem(str(tmp_path / "open" / "x"), ours)) == bool(fault)


def test_a_group_of_several_may_not_write_where_it_is_to_be_ours_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 0, NOBODY)
    shared.chmod(0o2775)
    assert "by its group" in folders.problem(str(shared / "x"))
    assert folders.problem(str(shared / "x"), ours=False) == ""


def test_links_of_root_on_the_way_are_followed_others_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "short").symlink_to("real")
    for name in ("link", "short"):
        assert folders.make(str(tmp_path / name / "run")) == ""
        assert "is a link" in folders.problem(str(tmp_path / name))
    assert (tmp_path / "real" / "run").is_dir()
    tmp_path.chmod(0o1777)
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    for ours in (True, False):
        assert "is a link of" in folders.problem(str(tmp_path / "link" / "run"), ours)
    (tmp_path / "round").symlink_to("round")
    assert folders.problem(str(tmp_path / "round" / "x")) != ""


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "file/x"):
        assert "is no folder" in folders.make(str(tmp_path / name))
