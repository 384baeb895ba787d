"""What the system says of a file or folder, and what a person can do about it."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from omnikit.errors import InputError

_ELSEWHERE = "choose another target"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TODO = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise this user's quota",
    errno.EROFS: f"mount it writable, or {_ELSEWHERE}",
    errno.ENOTDIR: f"a part of this path is a file: {_ELSEWHERE}",
    errno.EEXIST: f"move away what is there, or {_ELSEWHERE}",
    errno.ENOTEMPTY: f"move away what is there, or {_ELSEWHERE}",
    errno.EISDIR: "move this folder away: a file is expected there",
    errno.EBUSY: f"end what uses it, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: f"this file system or user (ulimit -f) allows no such size: {_ELSEWHERE}",
    errno.ELOOP: "this link leads to itself: name a folder",
    errno.ENOENT: "it was there before: bring it back",
    errno.EIO: "look at the disk's errors (dmesg); copy what is damaged again from where it came",
    errno.ESTALE: "mount this network file system again",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def what(error: OSError) -> str:
    """In words, without a full stop."""
    return "the disk is full" if error.errno in _FULL else str(error.strerror or error)


def todo(error: OSError, where: Path) -> str:
    """What to do before the next run."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"let user {os.geteuid()} read it, and write where the result goes ({_rights(where)})"
        )
    return _TODO.get(error.errno or 0, "look at what is there")


def _rights(where: Path) -> str:
    return f"look: namei -l {where}"


def is_there(path: Path) -> bool:
    """False also where nobody may look."""
    with suppress(OSError):
        return path.exists()
    return False


@contextmanager
def before_any_change(where: Path) -> Iterator[None]:
    """What the system refuses here is wrong input: nothing has been changed yet.

    where: what it concerns when the error does not say.
    """
    try:
        yield
    except OSError as error:
        raise refused(error, where) from error


def refused(error: OSError, where: Path) -> InputError:
    """An error of the system before anything was changed."""
    place = Path(os.fsdecode(error.filename)) if error.filename else where
    return InputError(f"{what(error)}.", where=str(place), todo=f"{todo(error, place)}; run again")
