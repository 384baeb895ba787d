"""Files of a result: whole or not there, and what is said when a disk does not take them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from hostkit.base.errors import ActionError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """The file to write instead, which becomes this one at the end; nothing is left on a failure.

    It has the same ending: some writers choose their format by it.
    """
    beside = path.with_name(f".new.{path.name}")
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
