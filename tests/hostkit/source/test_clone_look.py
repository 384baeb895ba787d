"""What there is of a source: commits, files that differ, our mark, space."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_cases import commit, git

from hostkit.base.errors import InputError
from hostkit.source import clone_look
from hostkit.source.clone_look import CLEAN


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "a").write_text("1")
    (folder / ".gitignore").write_text("*.o\n")
    commit(folder, tag="v1")
    return folder


def digest(folder: Path, *ours: str) -> str:
    return clone_look.files(folder, ours, 20).digest


def test_commits_by_name(clone: Path, tmp_path: Path) -> None:
    here = git(clone, "rev-parse", "HEAD")
    assert clone_look.head(clone) == here == clone_look.resolve(clone, "refs/tags/v1")
    assert clone_look.resolve(clone, "none") is None
    assert clone_look.head(tmp_path) is None and not clone_look.is_clone(tmp_path)


def test_a_clean_clone_ignores_what_git_ignores_and_what_is_ours(clone: Path) -> None:
    (clone / "x.o").write_text("x")
    (clone / "dist").mkdir()
    (clone / "dist/a").write_text("x")
    assert digest(clone, "dist") == CLEAN != digest(clone)


def test_the_digest_says_which_files_differ_and_what_they_hold(clone: Path) -> None:
    seen = [digest(clone)]
    for path, text in (("a", "2"), ("a", "3"), ("b", "3"), ("b", "4")):
        (clone / path).write_text(text)
        seen.append(digest(clone))
    (clone / "a").unlink()
    seen.append(digest(clone))
    assert len(set(seen)) == len(seen)
    git(clone, "stash", "--include-untracked")
    assert digest(clone) == CLEAN


def test_a_name_with_spaces_and_newlines_is_named(clone: Path) -> None:
    (clone / "a b\nc").write_text("x")
    assert clone_look.files(clone, (), 20).changed == ("?? a b\nc",)


def test_a_mark_is_read_back_and_a_broken_one_is_none(clone: Path) -> None:
    assert clone_look.read_mark(clone) == {}
    assert clone_look.write_mark(clone, {"state": "new"}) == {"state": "new"}
    assert clone_look.read_mark(clone) == {"state": "new"}
    (clone / ".git/omnikit.json").write_text("{")
    assert clone_look.read_mark(clone) == {}


def test_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    clone_look.check_space(tmp_path / "a/b/c", 0, "x")
    with pytest.raises(InputError, match="x needs 1e") as caught:
        clone_look.check_space(tmp_path / "a/b/c", 1e12, "x")
    assert caught.value.where == str(tmp_path)
