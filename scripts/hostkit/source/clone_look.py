"""What there is of a source on this host: its clone, our mark in it, files that differ."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.writing import read_back, write_atomically
from hostkit.source import git as source_git

CLEAN = "clean"
_MARK = "omnikit.json"  # in .git: that we made the clone, and how far we are with it
# States of the mark. NEW: nothing is checked out yet; FETCHING: its files are as they were;
# MOVING: its files are being replaced, and were clean before.
NEW, FETCHING, MOVING, DONE = "new", "fetching", "moving", "done"
_MIB = 1 << 20
_SHOWN = 8


@dataclass(frozen=True)
class Wanted:
    """A source that is wanted. ours: what the toolkit and the build make in its folder.

    settle: whether the changes in it are those that our own build made; if told to, it puts them
    out of the way. setting: what its settings' names begin with.
    """

    name: str
    folder: Path
    urls: tuple[str, ...]
    ref: str
    commit: Optional[str]
    ours: tuple[str, ...]
    setting: str
    settle: Callable[[bool], bool] = lambda act: False


@dataclass(frozen=True)
class Files:
    """Files that differ from the commit. digest: CLEAN, or a hash of which they are and hold."""

    changed: tuple[str, ...]
    digest: str


def is_clone(folder: Path) -> bool:
    """Whether a folder is a clone with something checked out."""
    return head(folder) is not None


def head(folder: Path) -> Optional[str]:
    """The commit that is checked out; None when there is none."""
    return resolve(folder, "HEAD")


def resolve(folder: Path, name: str) -> Optional[str]:
    """The commit of a name in a clone; None when there is none."""
    if not (folder / ".git").exists():
        return None
    argv = source_git.words(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    done = run.run(argv, env={"LC_ALL": "C"}, check=False)
    return done.out.strip() if done.code == 0 else None


def files(folder: Path, ours: Sequence[str], timeout_s: float) -> Files:
    """The files of a clone that differ from its commit, apart from ignored ones and ours."""
    without = [f":(exclude){path}" for path in ours]
    said = source_git.ask(
        *(folder, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"),
        *("--", ".", *without),
        timeout_s=timeout_s,
    )
    found = source_git.entries(said)
    if not found:
        return Files((), CLEAN)
    digest = hashlib.sha256(said.encode("utf-8", "surrogateescape"))
    for entry in found:
        path = folder / entry[3:]
        digest.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"-")
    return Files(tuple(entry.strip() for entry in found), digest.hexdigest())


def is_there(wanted: Wanted, commit: str) -> bool:
    """Whether what is checked out needs no asking: tags and commits do not move."""
    there = wanted.ref == commit or resolve(wanted.folder, f"refs/tags/{wanted.ref}") == commit
    return there and wanted.commit in (None, commit)


def was_here(wanted: Wanted, before: str) -> bool:
    """Whether what is checked out is what this reference last was."""
    mark = read_mark(wanted.folder)
    same = mark.get("state") == DONE and (mark.get("ref"), mark.get("commit")) == (
        wanted.ref,
        before,
    )
    return same and wanted.commit in (None, before)


def check_folder(wanted: Wanted) -> None:
    """Raise InputError when the folder is neither empty nor a clone."""
    folder, git = wanted.folder, wanted.folder / ".git"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError("this is a file; the source goes into a folder.", where=str(folder))
    if git.exists() and not git.is_dir():
        raise InputError(
            "this is a work tree or submodule of another clone; it is left alone.",
            where=str(folder),
            todo="name another folder: --dir DIR",
        )
    names = sorted(path.name for path in folder.iterdir())
    empty = names == [] or (names == [".git"] and not _has_refs(git))
    if empty or is_clone(folder) or read_mark(folder).get("state") in (NEW, MOVING):
        return
    raise InputError(
        f"this is no clone of {wanted.name} and not empty (it has {', '.join(names[:4])});"
        " it is left alone.",
        where=str(folder),
        todo="name another folder (--dir DIR), or move this one away",
    )


def _has_refs(git: Path) -> bool:
    """Whether something was committed or fetched, though nothing is checked out."""
    return (git / "packed-refs").exists() or any(p.is_file() for p in (git / "refs").rglob("*"))


def check_remotes(wanted: Wanted) -> None:
    """Raise InputError when this is a clone of something else."""
    argv = source_git.words(wanted.folder, "config", "--get-regexp", r"^remote\..*\.url$")
    said = run.run(argv, check=False).out.splitlines()
    found = [line.partition(" ")[2] for line in said]
    if any(source_git.same(one, url) for one in found for url in wanted.urls):
        return
    whose = source_git.hide(" and ".join(found)) or "nothing"
    raise InputError(
        f"this is a clone of {whose}, expected {source_git.hide(' or '.join(wanted.urls))};"
        " it is left alone.",
        where=str(wanted.folder),
        todo=f"name another folder (--dir DIR), or set {wanted.setting}_urls to where it is from",
    )


def dirty(wanted: Wanted, there: Files) -> InputError:
    """The error that names changed files."""
    more = len(there.changed) - _SHOWN
    shown = "\n".join(f"  {line}" for line in there.changed[:_SHOWN])
    shown += f"\n  and {more} more" if more > 0 else ""
    return InputError(
        f"this clone has changes that are in no commit; it is left alone.\n{shown}",
        where=str(wanted.folder),
        todo=f"put them aside: git -C {wanted.folder} stash --include-untracked; or leave the step"
        " fetch out and build what is there: --only build --only install --only check",
    )


def check_space(folder: Path, free_mib: float, what: str) -> None:
    """Raise InputError when a folder, or the nearest that is there, has too little space."""
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(place).free // _MIB
    if free < free_mib:
        raise InputError(
            f"{free} MiB are free, {what} needs {free_mib:g} (setting source.free_mib).",
            where=str(place),
            todo=f"make room, or name a folder on another disk: df -h {place}",
        )


def read_mark(folder: Path) -> dict[str, Any]:
    """Our mark in a clone; empty when there is none, or none that can be read."""
    return read_back(folder / ".git" / _MARK)


def write_mark(folder: Path, mark: dict[str, Any]) -> dict[str, Any]:
    """Write our mark, and return it."""
    write_atomically(folder / ".git" / _MARK, json.dumps(mark) + "\n")
    return mark
