"""Files that are there whole or not at all: written beside their place, then renamed.

What is written beside has a name that nobody could have put a link at. Private ones can be read by
nobody else from their first byte on, whatever the umask.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

from hostkit.base.errors import ActionError


def beside_of(path: Path) -> Path:
    """A place in the same folder for what becomes this file; its name cannot be foreseen."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """A file appears whole: written beside its place, then renamed."""
    beside = beside_of(path)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:  # a full disk is noticed where no path is told
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def read_back(path: Path) -> dict[str, Any]:
    """The JSON object of a file of ours; empty when there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sync_folder(folder: Path) -> None:
    """Names of files survive a power failure only when their folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """The file to write instead, which becomes this one at the end; nothing is left on a failure.

    It has the same ending: some writers choose their format by it.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    try:
        yield beside
        if beside.exists():
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def unwritten(error: OSError, folder: Path) -> ActionError:
    """The error for a result that a folder did not take."""
    return ActionError(
        f"the result cannot be kept: {error.strerror or error}.",
        where=str(error.filename or folder),
        todo=f"make room (df -h {folder}) or choose another place: --out DIR, then again",
    )


def private_folder(path: Path) -> None:
    """A folder of ours, for this user alone: also where an earlier version made it."""
    _make(path)
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)


def _make(path: Path) -> None:
    for missing in [one for one in (path, *path.parents) if not one.exists()][::-1]:
        missing.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, data: bytes) -> bool:
    """Write a file whole, only when it differs; True when it did. Missing folders become ours."""
    _make(path.parent)
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == data:
        return False
    beside = beside_of(path)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return True
