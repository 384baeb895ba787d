"""Whether a vLLM has upstream's patches, and what in it is somebody's own work. Changes nothing.

The patches themselves say so: they are taken back in memory, the last one first, as they lie on one
another. That needs neither .git nor git, which a host's copy of the source does not have.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.source import git, patch_unified
from hostkit.source.patch_unified import Lines

_LOOK_S = 600.0  # one look at a large clone on a slow disk
_SHOWN = 3


@dataclass(frozen=True)
class State:
    """names: of all patches, in order; missing: of those that are not applied. without: the files
    that they touch as they would be without them, None where there would be none.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    without: dict[str, Optional[bytes]] = field(repr=False)

    def lacks(self) -> str:
        """What is missing, as text."""
        more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        some = ", ".join(self.missing[:_SHOWN]) + more
        return f"{len(self.missing)} of {len(self.names)} patches of omni-infer: {some}"


class _Files:
    """Files of a folder, with changes that are made in memory alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.now: dict[str, Optional[Lines]] = {}

    def get(self, name: Optional[str]) -> Optional[Lines]:
        if name is None:
            return None
        if name not in self.now:
            data = content(self._folder / name)
            self.now[name] = None if data is None else patch_unified.split(data)
        return self.now[name]


def look(vllm: Path, patches: Sequence[Path]) -> State:
    """What a vLLM has of these patches. Raises InputError where a patch cannot be read."""
    files = _Files(vllm)
    missing = []
    for patch in reversed(patches):
        try:
            changes = patch_unified.parse(patch.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"this patch cannot be read: {error}.", where=str(patch)) from error
        before = dict(files.now)
        if not all(_undone(change, files) for change in reversed(changes)):
            files.now = before
            missing.append(patch.name)
    without = {
        name: None if lines is None else b"".join(lines) for name, lines in files.now.items()
    }
    return State(tuple(one.name for one in patches), tuple(reversed(missing)), without)


def _undone(change: patch_unified.Change, files: _Files) -> bool:
    """Take one change back; whether it was there."""
    if change.opaque:
        return True
    moved = change.after != change.before and not change.copied
    if moved and change.before is not None and files.get(change.before) is not None:
        return False  # there already is what taking it back would bring
    there = files.get(change.after) if change.after is not None else []
    was = None if there is None else patch_unified.undo(change, there)
    if was is None or (change.before is None and was):
        return False
    if change.after is not None and change.after != change.before:
        files.now[change.after] = None
    if change.before is not None and not change.copied:
        files.now[change.before] = was
    return True


def edits(vllm: Path, state: State) -> list[str]:
    """Files of a clone that differ from its commit by more than the patches: somebody's own work.

    What git ignores does not count. Raises ActionError when git cannot say.
    """
    said = git.ask(
        *(vllm, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"),
        timeout_s=_LOOK_S,
    )
    paths = [entry[3:] for entry in git.entries(said)]
    # A clone in the clone ends with a slash: neither reset nor clean touches it.
    paths = [path for path in paths if not path.endswith("/")]
    if not paths:
        return []
    tree = git.ask(vllm, "ls-tree", "-r", "-z", "HEAD", timeout_s=_LOOK_S)
    rows = [entry.partition("\t") for entry in git.entries(tree)]
    known = {path: line.split()[2] for line, _, path in rows}

    def own(path: str) -> Optional[str]:
        data = state.without[path] if path in state.without else content(vllm / path)
        return None if data is None else _blob(data, len(known.get(path, "")))

    return [path for path in paths if own(path) != known.get(path)]


def _blob(data: bytes, size: int) -> str:
    """The name that git gives to a content, in a repository whose names have that size."""
    made = hashlib.sha256() if size == hashlib.sha256().digest_size * 2 else hashlib.sha1()
    made.update(b"blob %d\0" % len(data) + data)
    return made.hexdigest()


def content(path: Path) -> Optional[bytes]:
    """What git keeps of a path; None where nothing is, or a folder."""
    if path.is_symlink():
        return os.fsencode(os.readlink(path))  # noqa: PTH115 (3.9 on)
    return path.read_bytes() if path.is_file() else None
