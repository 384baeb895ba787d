"""A copy of a source tree on this disk: looked at, and freed of what the source has not.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterable, Iterator, Optional

from hostkit.base.errors import ActionError
from hostkit.copy import tree
from hostkit.copy.tree import FOLDER, Changes, Excludes, Index, Manifest

_BYTECODE = "__pycache__"


@contextmanager
def named(folder: str) -> Iterator[None]:
    """An error of the disk becomes one that names the file and what to look at."""
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else folder
        raise ActionError(
            f"cannot be read or written: {error.strerror}.",
            where=tree.shown(tree.text(os.fsencode(name))),
            todo=f"look at its owner and at the disk: ls -ld {folder}; df -h {folder}",
        ) from error


def look(
    folder: str, excludes: Excludes, known: Index, sent: Optional[Manifest] = None
) -> tree.Tree:
    """What is there; nothing where there is no such folder."""
    if not Path(folder).exists():
        return tree.Tree({}, {})
    return tree.walk(folder, excludes, known, sent)


def changes(folder: str, wanted: Manifest, found: Manifest) -> Changes:
    """What differs. A folder of which only excluded things would remain stays, and is no change."""
    differs = tree.compare(wanted, found)
    gone: set[str] = set()
    for path in differs.delete:
        if found[path].kind != FOLDER or not _others(folder, path, gone):
            gone.add(path)
    delete = tuple(path for path in differs.delete if path in gone)
    return Changes(differs.create, differs.update, differs.mode, delete, differs.blocked)


def remove(folder: str, paths: Iterable[str]) -> None:
    """Remove files and folders, given deepest first, with the bytecode of what goes."""
    for path in paths:
        full = _join(folder, path)
        with suppress(FileNotFoundError):  # gone meanwhile
            if os.path.isdir(full) and not os.path.islink(full):  # noqa: PTH112, PTH114
                shutil.rmtree(_join(folder, f"{path}/{_BYTECODE}"), ignore_errors=True)
                os.rmdir(full)  # noqa: PTH106
            else:
                os.unlink(full)  # noqa: PTH108
                _remove_bytecode(folder, path)


def remove_unfinished(folder: str, files: Manifest) -> None:
    """Remove what rsync left of transfers that were cut off and are not needed any more."""
    inside = (path for path, one in files.items() if one.kind == FOLDER)
    for path in ("", *inside):
        place = _join(folder, f"{path}/{tree.UNFINISHED}" if path else tree.UNFINISHED)
        shutil.rmtree(place, ignore_errors=True)


def _others(folder: str, path: str, gone: set[str]) -> list[str]:
    try:
        names = [tree.text(name) for name in os.listdir(_join(folder, path))]  # noqa: PTH208
    except OSError:
        return []
    ours = (_BYTECODE, tree.UNFINISHED)
    return [name for name in names if name not in ours and f"{path}/{name}" not in gone]


def _remove_bytecode(folder: str, path: str) -> None:
    head, _, name = path.rpartition("/")
    if not name.endswith(".py"):
        return
    cache = _join(folder, f"{head}/{_BYTECODE}" if head else _BYTECODE)
    start = tree.raw(name[:-2])
    with suppress(FileNotFoundError, NotADirectoryError):
        for made in os.listdir(cache):  # noqa: PTH208
            if made.startswith(start) and made.endswith(b".pyc"):
                os.unlink(os.path.join(cache, made))  # noqa: PTH108, PTH118


def _join(folder: str, path: str) -> bytes:
    return os.path.join(tree.raw(folder), tree.raw(path))  # noqa: PTH118 (paths are bytes)
