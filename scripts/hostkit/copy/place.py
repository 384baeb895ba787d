"""Whether a folder may be made equal to a source tree: what is in it besides would be removed.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Optional, Sequence

# The system's own: these folders, and all that is below them.
_SYSTEM = frozenset(
    [
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "sys",
        "usr",
    ]
)
# Below these a folder may be, as they are meant for what people bring.
_PEOPLES = (PurePosixPath("/usr/local"), PurePosixPath("/usr/src"))
_FEWEST = 2


def refusal(folder: str, keep: Sequence[str] = (), home: Optional[str] = None) -> Optional[str]:
    """Why a folder must not be a destination; None when it may. Pure.

    keep: folders that it must neither be nor contain; home: of the user who would write there.
    """
    path = PurePosixPath(folder)
    if not path.is_absolute():
        return "it is no absolute path"
    if ".." in path.parts:
        return "there is .. in it"
    names = path.parts[1:]
    if len(names) < _FEWEST:
        return "it is too near to the root: at least two names are expected, as in /data/omniinfer"
    if names[0] in _SYSTEM and not any(_deep(path, free) for free in _PEOPLES):
        return "it belongs to the system"
    if (names[0] == "home" and len(names) == _FEWEST) or (home and path == PurePosixPath(home)):
        return "it is a home directory"
    for other in keep:
        if path == PurePosixPath(other) or path in PurePosixPath(other).parents:
            return f"{other} is in it, which must stay" if str(path) != other else "it must stay"
    return None


def real(folder: str) -> str:
    """Where a folder really is, also one that does not exist yet."""
    return os.path.realpath(folder)


def refusal_here(folder: str, keep: Sequence[str]) -> Optional[str]:
    """The same on this machine, for the path as it is written and for where it leads."""
    home = str(Path("~").expanduser())
    places = [real(one) for one in keep]
    return refusal(folder, keep, home) or refusal(real(folder), places, os.path.realpath(home))


def nested(one: str, other: str) -> bool:
    """Whether one of two folders is inside the other (equal is not inside)."""
    first, second = PurePosixPath(real(one)), PurePosixPath(real(other))
    return first in second.parents or second in first.parents


def nearest(folder: str) -> str:
    """The folder itself, or the nearest above it that exists."""
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    return str(path)


def free_bytes(folder: str) -> int:
    """Space that this user may still take where a folder is or would be."""
    found = os.statvfs(nearest(folder))
    return found.f_bavail * found.f_frsize


def _deep(path: PurePosixPath, free: PurePosixPath) -> bool:
    return free in path.parents and len(path.parts) >= len(free.parts) + _FEWEST
