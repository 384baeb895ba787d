"""Reads regular files only, and no more of them than such a file can have.

A pipe, a socket or a device would be waited for, or read, without an end. That is an OSError here,
which callers turn into their sentence as they do for a file that is missing.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# An index of 100,000 tensors has 10 MB.
LARGEST = 64 * 1024 * 1024
_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a pipe"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket"),
)


def opened(path: Path) -> BinaryIO:
    """The file for reading; links are followed. Raises OSError: none, or not a regular one."""
    _refuse(path, path.stat().st_mode)  # first: to open some devices does something to them
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse(path, os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except OSError:
        os.close(number)
        raise


def _refuse(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    code, what = next(
        ((code, what) for is_, code, what in _KINDS if is_(mode)), (errno.EINVAL, "it is a device")
    )
    raise OSError(code, f"{what}, expected a regular file", str(path))


def data(path: Path, largest: int = LARGEST) -> bytes:
    """Its bytes. Raises OSError."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            what = f"it is larger than {largest >> 20} MiB, which no such file is"
            raise OSError(errno.EFBIG, what, str(path))
        return file.read()


def text(path: Path, errors: str = "strict", largest: int = LARGEST) -> str:
    """Its text, which is UTF-8. Raises OSError, UnicodeDecodeError."""
    return data(path, largest).decode("utf-8", errors).replace("\r\n", "\n")


def parsed(path: Path) -> Any:
    """The JSON in it. Raises OSError, ValueError."""
    try:
        return json.loads(data(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
