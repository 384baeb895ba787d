"""What is in a source tree, what is left out of it, and how two trees differ."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from code_cases import EXCLUDE, HOSTILE, make_source

from hostkit.copy import tree
from hostkit.copy.tree import Excludes


@pytest.mark.parametrize(
    ("pattern", "path", "folder", "left_out"),
    [
        (".git", ".git", True, True),
        (".git", "vendor/.git", False, True),
        (".git", ".gitignore", False, False),
        ("dist/", "a/dist", True, True),
        ("dist/", "a/dist", False, False),
        ("*.egg-info/", "omni.egg-info", True, True),
        ("*.so", "a/b.so", False, True),
        ("*.so", "a.so/b", False, False),
        ("build/dist/", "build/dist", True, True),
        ("build/dist/", "a/build/dist", True, True),
        ("build/dist/", "rebuild/dist", True, False),
        ("build/dist/", "dist", True, False),
        ("/build/dist/", "a/build/dist", True, False),
        ("build/lib*/", "build/lib.linux/x", True, False),
        ("build/lib*/", "build/lib.linux", True, True),
        ("/top", "top", False, True),
        ("/top", "a/top", False, False),
        ("a?c", "a/c", False, False),
        ("[ab].py", "b.py", False, True),
        ("x/*.py", "x/y/z.py", False, False),
    ],
)
def test_patterns(pattern: str, path: str, folder: bool, left_out: bool) -> None:
    assert Excludes([pattern]).match(path, folder) is left_out


@pytest.mark.parametrize("pattern", ["", "/", "a/**/b", "a//b", "../x", "./x", "a\\*"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        Excludes([pattern])


def test_our_records_and_unfinished_files_are_never_part_of_a_tree() -> None:
    excludes = Excludes([])
    assert excludes.match(".omnikit-code.json", False) and excludes.match("a/.~tmp~", True)
    assert not excludes.match("a/.omnikit-code.json", False)


def test_a_walk_sees_files_folders_and_links_and_reads_no_file_twice(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    os.mkfifo(folder / "pipe")
    wait_until_old(folder)
    first = tree.walk(str(folder), Excludes(EXCLUDE))
    assert first.files["build/build.sh"][:3] == ("f", 0o755, 11)
    assert first.files["latest"] == ("l", 0, 0, 0, "omni/engine.py")
    assert first.files["nothing"].kind == "d" and first.others == ("pipe",)
    assert not [path for path in first.files if "pycache" in path or "dist" in path]
    again = tree.walk(str(folder), Excludes(EXCLUDE), first.index)
    assert again.files == first.files and again.read == 0 < first.read


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("1")
    os.utime(path, ns=(5, 5))
    wait_until_old(tmp_path)
    before = tree.walk(str(tmp_path), Excludes([]))
    path.write_text("2")
    os.utime(path, ns=(5, 5))
    after = tree.walk(str(tmp_path), Excludes([]), before.index)
    assert tree.compare(after.files, before.files).update == ("a.py",)


def test_a_file_that_may_still_change_unseen_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    assert tree.walk(str(tmp_path), Excludes([])).index == {}


def test_new_times_alone_change_nothing(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    before = tree.walk(str(folder), Excludes(EXCLUDE))
    for path in folder.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    after = tree.walk(str(folder), Excludes(EXCLUDE), before.index)
    assert tree.digest(after.files) == tree.digest(before.files)
    assert not tree.compare(after.files, before.files).all


def test_files_that_rsync_brought_are_taken_by_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    os.utime(tmp_path / "a", (7, 7))
    sent = {"a": tree.Entry("f", 0o644, 1, 7 * 10**9, "what it was sent as")}
    assert tree.walk(str(tmp_path), Excludes([]), {}, sent).files["a"].content == sent["a"].content
    os.utime(tmp_path / "a", (8, 8))
    found = tree.walk(str(tmp_path), Excludes([]), {}, sent)
    assert found.files["a"].content == tree.checksum(bytes(tmp_path / "a"))


def test_names_of_any_bytes_survive_and_are_shown_in_one_line(tmp_path: Path) -> None:
    for name in HOSTILE:
        (tmp_path / os.fsdecode(name)).write_text("x")
    found = tree.walk(str(tmp_path), Excludes([])).files
    assert {tree.raw(path) for path in found} == set(HOSTILE)
    assert tree.unpack(tree.pack(found)) == found
    assert all(tree.shown(path).isprintable() for path in found)
    assert tree.shown(tree.text(b"b\xff")) == "b\\xff" and tree.shown("a\x1b[2J") == "a\\x1b[2J"


def test_every_kind_of_difference_is_told_apart() -> None:
    def entry(kind: str, mode: int = 0o644, content: str = "1") -> tree.Entry:
        return tree.Entry(kind, mode, 1, 1, content)

    wanted = {
        "new": entry("f"),
        "other": entry("f", content="2"),
        "mode": entry("f", 0o755),
        "was-folder": entry("f"),
        "same": entry("f"),
        "link": entry("l", content="there"),
    }
    found = {
        "other": entry("f"),
        "mode": entry("f"),
        "was-folder": entry("d", content=""),
        "was-folder/x": entry("f"),
        "same": entry("f")._replace(mtime=99),
        "link": entry("l", content="elsewhere"),
        "left": entry("d", content=""),
        "left/in": entry("f"),
    }
    changes = tree.compare(wanted, found)
    assert changes.create == ("new", "was-folder") and changes.blocked == ("was-folder",)
    assert changes.update == ("link", "other") and changes.mode == ("mode",)
    assert changes.delete == ("left/in", "was-folder/x", "left")
    assert tree.digest(wanted) != tree.digest(found)


def wait_until_old(folder: Path) -> None:
    """Until a change of what is there could not go unseen."""
    from hostkit.base.health import wait_until

    newest = max(path.lstat().st_ctime_ns for path in folder.rglob("*"))
    assert wait_until(lambda: time.time_ns() - newest > 2 * 10**8, 5, 0.02)
