"""The source tree on this machine: its revision, what of it is copied, what is odd in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from code_cases import EXCLUDE, commit, make_source

from hostkit.base.errors import InputError
from hostkit.base.health import wait_until
from omnikit.source import transfer


def test_a_clone_with_its_commit_and_what_is_not_committed(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    (folder / ".gitignore").write_text("dist\n__pycache__\n*.egg-info\n")
    head = commit(folder)
    found = transfer.read(str(folder), EXCLUDE, None)
    assert found.revision == {"commit": head, "dirty": False, "describe": head[:12]}
    assert found.warnings == () and ".git" not in found.files
    assert found.line().endswith(f"7 files, 0.0 MiB, {head[:12]}")
    (folder / "build" / "dist" / "more.whl").write_text("not copied, so not told")
    (folder / "x.pyc").write_text("not copied either")
    assert transfer.read(str(folder), EXCLUDE, None).revision["dirty"] is False
    (folder / "omni" / "engine.py").write_text("speed = 2\n")
    found = transfer.read(str(folder), EXCLUDE, None)
    assert found.revision["dirty"] is True and "not committed" in found.line()


def test_vllm_below_it_has_a_revision_of_its_own(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    head = commit(folder)
    vllm = folder / "infer_engines" / "vllm"
    vllm.mkdir(parents=True)
    (vllm / "setup.py").write_text("")
    its = commit(vllm)
    found = transfer.read(str(folder), EXCLUDE, None)
    assert (found.revision["commit"], found.revision["dirty"]) == (head, False)
    assert found.revision["vllm"]["commit"] == its
    assert "infer_engines/vllm/setup.py" in found.files


def test_what_is_odd_is_said_and_not_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "a.py").write_text("")
    (folder / "out").symlink_to("../elsewhere")
    (folder / "far").symlink_to("/etc/passwd")
    (folder / "in").symlink_to("./x/../a.py")
    os.mkfifo(folder / "pipe")
    found = transfer.read(str(folder), EXCLUDE, None)
    said = "\n".join(found.warnings)
    assert "is it the source that is meant" in said
    assert "links out of the tree, to what the hosts may not have: far, out" in said
    assert "stay here: pipe" in said
    assert found.revision == {"commit": None, "dirty": False, "describe": None}
    assert "no git commit" in found.line()


def test_files_in_git_that_are_left_out_are_said(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    commit(folder)
    said = "\n".join(transfer.read(str(folder), EXCLUDE, None).warnings)
    assert "files in git of omniinfer that sync.exclude leaves out: " in said
    assert "omni/__pycache__/engine.cpython-311.pyc" in said


def test_a_repository_that_git_does_not_read_is_copied_all_the_same(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "s")
    (folder / ".git").mkdir()
    found = transfer.read(str(folder), EXCLUDE, None)
    assert found.revision["commit"] is None and "git says nothing about it" in found.warnings[-1]


@pytest.mark.parametrize("what", ["missing", "file", "empty", "root", "home", "unreadable"])
def test_what_is_no_source_is_refused(tmp_path: Path, monkeypatch, what: str) -> None:
    folder = tmp_path / "s"
    if what == "file":
        folder.write_text("")
    if what == "empty":
        (folder / "sub").mkdir(parents=True)
    if what == "home":
        make_source(folder)
        monkeypatch.setenv("HOME", str(folder))
    if what == "unreadable":
        folder.mkdir()
        (folder / "loop").mkdir()
        (folder / "name").write_text("")
        # Root reads everything: a folder that ends while it is read stands for what is unreadable.
        monkeypatch.setattr(transfer.tree, "walk", _fails)
    with pytest.raises(InputError) as caught:
        transfer.read("/" if what == "root" else str(folder), EXCLUDE, None)
    assert "paths.local_code_dir" in str(caught.value)


def _fails(*_: object) -> None:
    raise PermissionError(13, "Permission denied", b"/some/where\xff")


def test_a_second_look_reads_no_file_again_unless_that_is_wanted(tmp_path, monkeypatch) -> None:
    folder, cache = make_source(tmp_path / "s"), tmp_path / "c" / "index.json"
    newest = time.time_ns()
    assert wait_until(lambda: time.time_ns() - newest > 2 * 10**8, 5, 0.02)
    first = transfer.read(str(folder), EXCLUDE, cache)
    seen: list[bytes] = []
    checksum = transfer.tree.checksum
    monkeypatch.setattr(
        transfer.tree, "checksum", lambda path: [seen.append(path), checksum(path)][1]
    )
    assert transfer.read(str(folder), EXCLUDE, cache).digest == first.digest and seen == []
    transfer.read(str(folder), EXCLUDE, cache, True)
    assert len(seen) == 6
    cache.write_text("{broken")
    assert transfer.read(str(folder), EXCLUDE, cache).digest == first.digest
