"""Checksums of files: published lists, and hashes that are computed while data passes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Callable, Collection, Mapping, Optional

from omnikit.errors import ActionError, InputError

# Names under which a source publishes them, the first that is there.
NAMES = ("SHA256SUMS", "sha256sum.txt", "SHA256SUMS.txt", "sha256sums.txt")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_BSD = re.compile(r"SHA256 ?\((.+)\) = ([0-9a-fA-F]{64})")
_MAKE = "make the list with: sha256sum * > SHA256SUMS"
_BLOCK = 1 << 20


def parse(text: str, where: str) -> dict[str, str]:
    """File name to hash, of what sha256sum and shasum write.

    Raises InputError with the line, or: there is none, so that nothing would be verified.
    """
    found = {}
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):  # Windows' mark
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        plain, bsd = _LINE.fullmatch(line), _BSD.fullmatch(line)
        if plain:
            found[_name(plain[2])] = f"sha256:{plain[1].lower()}"
        elif bsd:
            found[_name(bsd[1])] = f"sha256:{bsd[2].lower()}"
        else:
            raise InputError(
                f"found {line[:60]!r}, expected a SHA-256 and a file's name.",
                where=f"{where}:{number}",
                todo=_MAKE,
            )
    if not found:
        raise InputError("found no checksum in it.", where=where, todo=_MAKE)
    return found


def read(path: Path, todo: str) -> dict[str, str]:
    """The same of a file. Raises InputError: it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot be read: {reason}.", where=str(path), todo=todo) from error
    return parse(text, str(path))


def all_there(
    sums: Collection[str], found: Collection[str], where: str, why: Mapping[str, str]
) -> None:
    """Raises ActionError: the source has not all files that the checksums name.

    why: what is known of those that are not there.
    """
    missing = sorted(set(sums) - set(found) - set(NAMES))  # a list may name itself
    if missing:
        told = [f"{name} ({why[name]})" if name in why else name for name in missing[:3]]
        raise ActionError(
            f"lacks {len(missing)} files that the checksums name: {', '.join(told)}.",
            where=where,
            todo="complete it, or make the checksums anew: each line has a file's name as it is"
            " below the source",
        )


def _name(text: str) -> str:
    return text[2:] if text.startswith("./") else text


class Digest:
    """The hash of content as it comes. kind: that of RemoteFile.hash; size: bytes of a git blob."""

    def __init__(self, kind: str, size: Optional[int] = None) -> None:
        self.kind = "git" if kind.startswith("git:") else "sha256"
        self.hash: Any = hashlib.sha1() if self.kind == "git" else hashlib.sha256()
        if self.kind == "git":
            # git hashes a header with the length in front of a file's content.
            self.hash.update(f"blob {size}\0".encode())

    def update(self, data: Any) -> None:
        """More content."""
        self.hash.update(data)

    def text(self) -> str:
        """For example sha256:9f86…"""
        return f"{self.kind}:{self.hash.hexdigest()}"


def of_file(path: Path, kind: str, passed: Callable[[int], None] = lambda count: None) -> str:
    """The hash of a file on the disk. passed: gets the bytes that were read."""
    made = Digest(kind, path.stat().st_size)
    feed(made, path, passed)
    return made.text()


def feed(digest: Digest, path: Path, passed: Callable[[int], None]) -> int:
    """Put a file's content into a hash; its bytes."""
    count = 0
    with path.open("rb") as file:
        while True:
            data = file.read(_BLOCK)
            if not data:
                return count
            digest.update(data)
            count += len(data)
            passed(len(data))
