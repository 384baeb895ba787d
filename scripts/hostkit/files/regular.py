"""Files that a user names: read only regular ones, and no more of them than such a file can have.

A pipe, a socket or a device would be waited for, or read, without an end. That is an OSError here,
which callers turn into their sentence as they do for a file that is missing.
A file that a command will write is looked at before any work is done, and written whole after it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Callable, Union

from hostkit.base import values
from hostkit.base.errors import InputError
from hostkit.base.writing import write_atomically

# Files there are the kernel's; some look regular (/dev/stdout, where it was sent to a file).
_KERNEL = ("/dev/", "/proc/", "/sys/")


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


def sha256(path: Union[Path, bytes], passed: Callable[[int], None] = lambda count: None) -> str:
    """The hash of a file's bytes. passed: gets the number of those after each part."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a path may be bytes)
        while block := file.read(1 << 20):
            digest.update(block)
            passed(len(block))
    return digest.hexdigest()


def text(path: Path, errors: str = "strict", largest: int = LARGEST) -> str:
    """Its text, which is UTF-8. Raises OSError, UnicodeDecodeError."""
    return data(path, largest).decode("utf-8", errors).replace("\r\n", "\n")


def parsed(path: Path) -> Any:
    """The JSON in it. Raises OSError, ValueError."""
    return values.parsed(data(path))


def to_write(path_text: str, option: str) -> Path:
    """The file that can be written there, whole and by renaming. Raises InputError.

    A link is followed, so that the file it leads to is replaced and not the link. What is no
    regular file is refused: renaming would put a file in the place of a device, even as root.
    The folder need not exist yet.
    """
    if not path_text.strip():
        raise _unfit("the name of the file is empty.", path_text, option)
    try:
        given = Path(path_text).expanduser()
        path = Path(os.path.realpath(given))
        fault = _unwritable(path_text, given, path)
    except (OSError, RuntimeError, ValueError) as error:
        # No such user after ~, a NUL, a name too long, a folder that may not be searched.
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise _unfit(f"this can be no file: {said}.", path_text, option) from error
    if fault:
        raise _unfit(fault, path_text, option)
    return path


def _unfit(what: str, path_text: str, option: str) -> InputError:
    todo = f"name a file, new or to be replaced: {option} FILE"
    return InputError(what, where=f"{option} {path_text!r}", todo=todo)


def _unwritable(text: str, given: Path, path: Path) -> str:
    """What is wrong with a path; "": nothing."""
    if f"{given.absolute()}/".startswith(_KERNEL) or f"{path}/".startswith(_KERNEL):
        return "this is no file on a disk."
    if text.endswith("/"):
        return "this names a folder."
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _no_place(path)
    if stat.S_ISDIR(mode):
        return f"{path} is a folder."
    if stat.S_ISLNK(mode):
        return "this is a link that leads to itself."
    return _no_place(path) if stat.S_ISREG(mode) else f"{path} is no regular file."


def _no_place(path: Path) -> str:
    """What is wrong with the folder of a path, or with the nearest that exists above it."""
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir():
        return f"{above} is a file, no folder."
    return "" if os.access(above, os.W_OK | os.X_OK) else f"the folder {above} may not be written."


def write(path: Path, text: str) -> None:
    """Write a file whole, for its owner alone; nothing is left of one that failed. Raises OSError.

    What UTF-8 cannot hold becomes a question mark.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8", "replace").decode(), 0o600)
