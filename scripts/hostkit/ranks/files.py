"""Rank table files: read one with a clear error, write several so that each appears whole.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Mapping

from hostkit.base.errors import ActionError, InputError
from hostkit.base.writing import written
from hostkit.files import regular


def load(path: Path) -> Any:
    """The table in a file, as it is there."""
    todo = "give the path of a rank table that --mode gen or merge-local wrote"
    try:
        return regular.parsed(path)
    except OSError as error:
        raise InputError(
            f"cannot read it: {error.strerror}.", where=str(path), todo=todo
        ) from error
    except ValueError as error:
        raise InputError(f"it is not JSON: {error}.", where=str(path), todo=todo) from error


def state(path: Path, text: str) -> str:
    """What writing text there would do: created, rewritten or unchanged."""
    try:
        return "unchanged" if regular.data(path) == text.encode() else "rewritten"
    except FileNotFoundError:
        return "created"
    except OSError as error:
        raise InputError(
            f"cannot look at it: {error.strerror}.", where=str(path), todo="choose --save-dir DIR"
        ) from error


def save_all(folder: Path, texts: Mapping[str, str], *, dry_run: bool) -> dict[str, str]:
    """Write files by name into a folder; an unchanged one is not touched. Their states by name.

    All are written beside their names first and renamed last: a full disk leaves no half table.
    """
    states = {name: state(folder / name, text) for name, text in texts.items()}
    if dry_run:
        return states
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder: {error.strerror}.",
            where=str(folder),
            todo="choose a folder that you may write: --save-dir DIR",
        ) from error
    try:
        with ExitStack() as pending:
            for name, text in texts.items():
                if states[name] != "unchanged":
                    beside = pending.enter_context(written(folder / name))
                    beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ActionError(
            f"cannot write there: {error.strerror}.",
            where=str(folder),
            todo="check the folder's owner, permissions and free space, or choose --save-dir DIR",
        ) from error
    return states
