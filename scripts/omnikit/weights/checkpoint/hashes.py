"""Hashes of files, and of content while it passes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.files import regular

_STEP = 8 << 20


class Digest:
    """The hash of content as it comes: sha256, or git's of a blob that has size bytes."""

    def __init__(self, kind: str = "sha256", size: Optional[int] = None) -> None:
        self.kind = kind.partition(":")[0] or "sha256"
        self.hash: Any = hashlib.sha1() if self.kind == "git" else hashlib.sha256()
        if self.kind == "git":
            # git hashes a header with the length in front of a file's content.
            self.hash.update(f"blob {size}\0".encode())

    def update(self, data: Any) -> None:
        """More content."""
        self.hash.update(data)

    def feed(self, path: Path, passed: Callable[[int], None] = lambda count: None) -> None:
        """A whole file's content. passed: gets the number of bytes after each part."""
        buffer = memoryview(bytearray(_STEP))
        with regular.opened(path) as file:
            while count := file.readinto(buffer):  # type: ignore[attr-defined]
                self.hash.update(buffer[:count])
                passed(count)

    def text(self) -> str:
        """For example sha256:9f86…"""
        return f"{self.kind}:{self.hash.hexdigest()}"


def of_file(path: Path, kind: str, passed: Callable[[int], None] = lambda count: None) -> str:
    """KIND:HASH of a file; kind may be such a text."""
    made = Digest(kind, path.stat().st_size)
    made.feed(path, passed)
    return made.text()


def sha256(path: Path, passed: Callable[[int], None] = lambda count: None) -> str:
    """Of a file, in hexadecimal."""
    return of_file(path, "sha256", passed).partition(":")[2]
