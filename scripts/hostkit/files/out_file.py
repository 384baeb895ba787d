"""A file that an option names and a command will write: looked at before any work is done, written
whole after it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from hostkit.base.errors import InputError

# Files there are the kernel's; some look regular (/dev/stdout, where it was sent to a file).
_KERNEL = ("/dev/", "/proc/", "/sys/")


def regular(path_text: str, option: str) -> Path:
    """The file that can be written there, whole and by renaming. Raises InputError.

    A link is followed, so that the file it leads to is replaced and not the link. What is no
    regular file is refused: renaming would put a file in the place of a device, even as root.
    The folder need not exist yet.
    """
    if not path_text.strip():
        raise _refused("the name of the file is empty.", path_text, option)
    try:
        given = Path(path_text).expanduser()
        path = Path(os.path.realpath(given))
        fault = _fault(path_text, given, path)
    except (OSError, RuntimeError, ValueError) as error:
        # No such user after ~, a NUL, a name too long, a folder that may not be searched.
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(f"this can be no file: {said}.", path_text, option) from error
    if fault:
        raise _refused(fault, path_text, option)
    return path


def _refused(what: str, path_text: str, option: str) -> InputError:
    todo = f"name a file, new or to be replaced: {option} FILE"
    return InputError(what, where=f"{option} {path_text!r}", todo=todo)


def _fault(text: str, given: Path, path: Path) -> str:
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
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "replace"))
        beside.replace(path)
    except BaseException:  # an interrupt too
        with suppress(OSError):
            beside.unlink()
        raise
