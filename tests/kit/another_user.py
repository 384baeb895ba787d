"""Tests of what a user may not do who is not root, whoever runs the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

NOBODY = 65534


@contextmanager
def folder_of_nobody() -> Iterator[Path]:
    """A folder that the user of as_nobody owns and can get to: those above pytest's are closed."""
    folder = Path(tempfile.mkdtemp(prefix="omnikit-nobody-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def close(folder: Path) -> None:
    """Nobody but root can look into a folder any more."""
    folder.chmod(0o000 if os.geteuid() else 0o700)


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process without root's rights, if it has them."""
    if os.geteuid() != 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
