"""A large file that is written past the page cache, where its file system can: less than half the
processor's time of a write, and other programs keep what they have cached.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Optional

import numpy as np

# Of places in the file and in memory: what every disk and file system takes (open(2), O_DIRECT).
ALIGN = 4096
# Bytes that are handed to the page cache at once, where there is no way past it. It caches larger
# pieces in larger pages; a virtual machine gives those back to its host when they are freed, and
# has to get them anew.
_PIECE = 256 << 10


def buffer(size: int) -> Any:
    """uint8 [size] that begins at a multiple of ALIGN."""
    raw = np.empty(size + ALIGN, np.uint8)
    skip = -raw.ctypes.data % ALIGN
    return raw[skip : skip + size]


class DirectFile:
    """A new file of size bytes. Several threads may write, each its own bytes, each byte once."""

    def __init__(self, path: Path, size: int) -> None:
        self.file = path.open("xb", buffering=0)
        self.direct: Optional[int] = None
        # Bytes at the ends of what was written that do not fill an aligned block: kept until the
        # end, for one block written both ways would have to be waited for.
        self.edges: list[tuple[int, bytes]] = []
        try:
            self.file.truncate(size)
            self.direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is how a file system says that it cannot
                self.close()
                raise

    def write(self, start: int, data: memoryview) -> None:
        """Put data at start. Only what lies in memory as in the file, seen from a multiple of
        ALIGN (see buffer), goes straight to the disk. Raises OSError.
        """
        lead = -start % ALIGN
        whole = (len(data) - lead) // ALIGN * ALIGN
        direct = self.direct
        if direct is None or whole <= 0 or not _lies_as_in_file(data, start):
            self._write_plain(start, data)
            return
        for at, end in ((0, lead), (lead + whole, len(data))):
            if at < end:
                self.edges.append((start + at, bytes(data[at:end])))
        done, middle = 0, data[lead : lead + whole]
        while done < whole:
            try:
                done += os.pwrite(direct, middle[done:], start + lead + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # A file system that says so only now, or what is left after a short write.
                self._write_plain(start + lead + done, middle[done:])
                return

    def _write_plain(self, start: int, data: memoryview) -> None:
        descriptor, done = self.file.fileno(), 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done : done + _PIECE], start + done)
        # What is dirty begins to go to the disk now, and not all at once when the file is complete.
        os.posix_fadvise(descriptor, start, len(data), os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """All of it is on the disk, and the file is closed. Raises OSError."""
        for start, data in self.edges:
            self._write_plain(start, memoryview(data))
        os.fsync(self.file.fileno())
        self.close()

    def close(self) -> None:
        """Close it, complete or not; a second time does nothing."""
        if self.direct is not None:
            os.close(self.direct)
            self.direct = None
        self.file.close()


def _lies_as_in_file(data: memoryview, start: int) -> bool:
    return (int(np.frombuffer(data, np.uint8).ctypes.data) - start) % ALIGN == 0
