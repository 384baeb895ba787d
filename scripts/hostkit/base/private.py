"""Files that nobody else may read, from their first byte on, whatever the umask.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


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
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return True
