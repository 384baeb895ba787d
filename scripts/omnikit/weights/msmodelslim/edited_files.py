"""Edits files of a checkpoint whole, keeps each original beside as NAME.orig, and puts it back.

A file may be a link into a Hugging Face cache, where other checkpoints use it too. So nothing is
ever written through a link: the link itself becomes NAME.orig, and a file takes its place.
"""

from __future__ import annotations

import difflib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

from hostkit.base.errors import ActionError, InputError, ManyErrors, ToolkitError
from hostkit.files import regular
from omnikit.weights.msmodelslim.edits import Edited, Edits, Unexpected


@dataclass(frozen=True)
class Change:
    """What is to happen to one file: its text before and after, and why."""

    path: Path
    before: str
    after: str
    done: tuple[str, ...]

    @property
    def original(self) -> Path:
        """Where the file is kept as it was."""
        return self.path.with_name(f"{self.path.name}.orig")

    @property
    def diff(self) -> str:
        """The change as a unified diff; without line ends."""
        old, new = (
            text.replace("\r\n", "\n").removesuffix("\n").split("\n")
            for text in (self.before, self.after)
        )
        names = (f"{self.path.name}.orig", self.path.name)
        if self.done == (RESTORED,):
            names = (names[1], names[0])
        return "\n".join(difflib.unified_diff(old, new, *names, lineterm=""))


RESTORED = "the original is put back"


def plan(folder: Path, edits: Edits) -> list[Change]:
    """What the edits would do to the files of a folder; one without a change has no "done".

    Raises InputError, for all files at once, where one is missing or not as expected.
    """
    errors: list[ToolkitError] = []
    changes: list[Change] = []
    for name, edit in edits.items():
        try:
            changes.append(_planned(folder / name, edit))
        except InputError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(errors)
    return changes


def _planned(path: Path, edit: Callable[[str], Edited]) -> Change:
    text = read(path)
    try:
        edited = edit(text)
    except Unexpected as error:
        raise InputError(
            f"{error}.",
            where=str(path),
            todo=error.todo
            or "check that this is the checkpoint you mean; the file is left as it is",
        ) from None
    change = Change(path, text, edited.text, edited.done)
    if edited.done and os.path.lexists(change.original) and read(change.original) != text:
        raise InputError(
            f"{change.original.name} is there already, and is not this file as it is now.",
            where=str(path),
            todo=f"compare them (diff {change.original} {path}), then move one of them away",
        )
    return change


def plan_revert(folder: Path, edits: Edits) -> list[Change]:
    """What it takes to put the originals back; a file without one has no "done".

    Raises InputError where a file has changes besides ours, which would be lost.
    """
    changes = []
    for name, edit in edits.items():
        path = folder / name
        original = path.with_name(f"{name}.orig")
        if not os.path.lexists(original):
            now = read(path)
            changes.append(Change(path, now, now, ()))
            continue
        before = read(original)
        if not os.path.lexists(path):  # nothing there that could be lost
            changes.append(Change(path, "", before, (RESTORED,)))
            continue
        now = read(path)
        try:
            ours = edit(before).text
        except Unexpected:
            ours = before
        if now not in (ours, before):
            raise InputError(
                "has changes besides those of this tool, which would be lost.",
                where=str(path),
                todo=f"diff {original} {path}; then, if they may go: mv {original} {path}",
            )
        changes.append(Change(path, now, before, (RESTORED,)))
    return changes


def apply(changes: list[Change]) -> None:
    """Carry changes out, whole files only. Raises ActionError where the folder is not writable."""
    for change in changes:
        if not change.done:
            continue
        try:
            if change.done == (RESTORED,):
                change.original.replace(change.path)
            else:
                _keep(change)
                _write(change)
        except OSError as error:
            folder = change.path.parent
            raise ActionError(
                f"cannot be replaced: {error.strerror}.",
                where=str(change.path),
                todo="free some space, or see who may write there:"
                f" df -h {folder}; ls -ld {folder}",
            ) from error


def told(changes: Sequence[Change], *, would: bool) -> str:
    """The changes for people: what each file gets, and the differences."""
    lines = []
    for change in changes:
        if not change.done:
            lines.append(f"{change.path}: unchanged")
        for text in change.done:
            lines.append(f"{change.path}: {'would be done: ' if would else ''}{text}")
        if change.done:
            lines.append(change.diff)
    return "\n".join(line for line in lines if line)


def data(folder: Path, changes: Sequence[Change], *, would: bool) -> dict[str, Any]:
    """The same for programs."""
    done = any(change.done for change in changes)
    return {
        "folder": str(folder),
        "result": ("would be changed" if would else "changed") if done else "unchanged",
        "files": [
            {"file": change.path.name, "changes": list(change.done), "diff": change.diff}
            for change in changes
        ],
    }


def read(path: Path) -> str:
    """A file's text with its own line ends. Raises InputError."""
    try:
        return regular.data(path).decode("utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}.",
            where=str(path),
            todo="give the folder of a whole checkpoint",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"is no UTF-8 text: {error}.",
            where=str(path),
            todo="download it again: as published it is UTF-8",
        ) from error


def _keep(change: Change) -> None:
    """The file, or the link that stands there, as NAME.orig."""
    if os.path.lexists(change.original):
        return  # of a run that was cut off here; plan() has compared it
    if change.path.is_symlink():
        change.original.symlink_to(change.path.readlink())
        return
    beside = _beside(change.original)
    try:
        shutil.copy2(change.path, beside)
        beside.replace(change.original)
    finally:
        beside.unlink(missing_ok=True)


def _write(change: Change) -> None:
    mode = change.path.stat().st_mode & 0o7777
    beside = _beside(change.path)
    try:
        with beside.open("wb") as file:
            file.write(change.after.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode)
        beside.replace(change.path)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
