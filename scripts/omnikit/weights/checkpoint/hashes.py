"""Hashes of files, of content while it passes, and what is published of them: lists as sha256sum
writes them, records of downloads, a conversion's manifest.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.base.errors import InputError
from hostkit.base.writing import read_back
from hostkit.files import regular

_STEP = 8 << 20
MANIFEST = "omnikit-weights.json"  # what a conversion's result says of itself
STAGING = ".download"  # of download-weights, with the record of what it has verified
RECORD = "record.json"
# Names under which a source publishes checksums, the first that is there.
NAMES = ("SHA256SUMS", "sha256sum.txt", "SHA256SUMS.txt", "sha256sums.txt")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_BSD = re.compile(r"SHA256 ?\((.+)\) = ([0-9a-fA-F]{64})")
_MAKE = "make the list with: sha256sum * > SHA256SUMS"
_HASH = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")
# Where Hugging Face's own client notes what it was told of each file: commit, ETag, time. The ETag
# is the SHA-256 of a large file, git's hash of a small one.
_CLIENT = Path(".cache", "huggingface", "download")


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


def parse_sums(text: str, where: str) -> dict[str, str]:
    """File name to hash, of what sha256sum and shasum write.

    Raises InputError with the line, or: there is none, so that nothing would be verified.
    """
    found = {}
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):  # Windows' mark
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        plain, bsd = _LINE.fullmatch(line), _BSD.fullmatch(line)
        if not plain and not bsd:
            raise InputError(
                f"found {line[:60]!r}, expected a SHA-256 and a file's name.",
                where=f"{where}:{number}",
                todo=_MAKE,
            )
        digest, name = (plain[1], plain[2]) if plain else (bsd[2], bsd[1]) if bsd else ("", "")
        found[name.removeprefix("./")] = f"sha256:{digest.lower()}"
    if not found:
        raise InputError("found no checksum in it.", where=where, todo=_MAKE)
    return found


def read_sums(path: Path, todo: str) -> dict[str, str]:
    """The same of a file. Raises InputError: it cannot be read."""
    try:
        text = regular.text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot be read: {reason}.", where=str(path), todo=todo) from error
    return parse_sums(text, str(path))


def published(folder: Path) -> tuple[dict[str, str], str]:
    """KIND:HASH of a folder's files as they were published, by name, and who says so; both empty:
    nobody does, so that a byte that has changed cannot be noticed.

    Raises InputError: a list of checksums that is none.
    """
    found: dict[str, str] = {}
    told: list[str] = []

    def take(more: dict[str, Any], where: str) -> None:
        good = {name: one for name, one in more.items() if _HASH.fullmatch(str(one))}
        if good:
            found.update(good)
            told.append(where)

    metadata = sorted((folder / _CLIENT).glob("*.metadata"))
    take({path.stem: _etag(path) for path in metadata}, str(_CLIENT))
    files = read_back(folder / MANIFEST).get("files")
    entries = files.items() if isinstance(files, dict) else ()
    hashes = {name: one.get("sha256") for name, one in entries if isinstance(one, dict)}
    take({name: f"sha256:{one}" for name, one in hashes.items()}, MANIFEST)
    files = read_back(folder / STAGING / RECORD).get("files")
    entries = files.items() if isinstance(files, dict) else ()
    # The identity is a hash where the source has published one.
    identities = {name: one.get("identity") for name, one in entries if isinstance(one, dict)}
    take(identities, f"{STAGING}/{RECORD}")
    for name in NAMES:
        if (folder / name).is_file():
            take(read_sums(folder / name, "mend it, or move it away"), name)
            break
    return found, ", ".join(told)


def _etag(path: Path) -> str:
    try:
        etag = regular.text(path).splitlines()[1].strip('"')
    except (OSError, UnicodeDecodeError, IndexError):
        return ""
    return f"{'sha256' if len(etag) == 64 else 'git'}:{etag}"
