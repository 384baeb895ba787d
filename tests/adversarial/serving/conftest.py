"""A file system that fills up."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Iterator

import pytest
from full_disk import Disk
from needs import needs

from hostkit.base import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """16 MiB, in a mount namespace of this process alone."""
    needs("mount", root=True)
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    here = Path.cwd()
    path = tmp_path / "disk"
    path.mkdir()
    assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    try:
        run.run(["mount", "--make-rprivate", "/"])
        run.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "small", str(path)])
        yield Disk(path)
    finally:
        while os.path.ismount(path):
            run.run(["umount", "--lazy", str(path)])
        assert libc.setns(home, 0) == 0
        os.close(home)
        os.chdir(here)
