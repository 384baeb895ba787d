"""What a source offers and how it is fetched: plain data that all kinds of sources share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Mapping, Optional, Sequence
from urllib.parse import urlsplit

from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint.hashes import STAGING


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source. size: bytes, None where the source does not say.

    hash: sha256:HEX or git:HEX (of a git blob), empty where nothing is published. version: what
    changes with the content where there is no hash: an ETag, a date.
    """

    name: str
    url: str
    size: Optional[int] = None
    hash: str = ""
    version: str = ""

    @property
    def identity(self) -> str:
        """What tells this content from another; empty: nothing does."""
        return self.hash or self.version


@dataclass(frozen=True)
class Listing:
    """origin: the source in words and for records. headers: secret, for the host of host only.

    lost: names of files that the source says it has and does not give, with why. notes: what a
    person should know of the list.
    """

    origin: str
    revision: str
    files: list[RemoteFile]
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    lost: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def hub(self) -> bool:
        """Whether the source has repositories, and is no plain server or folder."""
        return not self.origin.startswith(("url:", "folder:"))


@dataclass(frozen=True)
class Patience:
    """attempts: of one file without progress. delay_s: before the second, then doubled."""

    attempts: int
    delay_s: float
    timeout_s: float


class TransientError(Exception):
    """A fault that may be over at the next attempt. wait_s: what the server asks for."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


def host_of(url: str) -> str:
    """HOST or HOST:PORT of an address."""
    return urlsplit(url).netloc


def checked_name(name: str, origin: str) -> str:
    """A file's name below the target. Raises ActionError: it leads elsewhere."""
    path = PurePosixPath(name)
    odd = any(ord(character) < 32 or character == "\\" for character in name)
    if not path.parts or path.is_absolute() or ".." in path.parts or odd or str(path) != name:
        raise ActionError(
            f"names a file {name!r}, which is no path below a folder.",
            where=origin,
            todo="do not use this source, or leave the file out with --exclude",
        )
    return name


def staging(target: Path) -> Path:
    """The hidden folder in the target: unfinished files, the record, the lock."""
    return target / STAGING
