"""Names of images: their parts, and the same image's name at another registry. Pure.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

# What an image's name without a registry means, to Docker and in its registry's own paths.
HUB = "docker.io"
_HUB_FOLDER = "library"


@dataclass(frozen=True)
class Reference:
    """An image's name. repository: without registry; tag, digest: empty when not given."""

    text: str
    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The text without tag and digest."""
        return split(self.text)[0]

    def at(self, mirror: str) -> str:
        """The name of the same image at a mirror: HOST[:PORT][/PATH]."""
        folder = self.repository
        if self.registry == HUB and "/" not in folder:
            folder = f"{_HUB_FOLDER}/{folder}"
        ending = f"@{self.digest}" if self.digest else f":{self.tag or 'latest'}"
        return f"{mirror.rstrip('/')}/{folder}{ending}"


def split(text: str) -> tuple[str, str, str]:
    """Name, tag and digest of a reference."""
    rest, _, digest = text.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}", tag, digest


def parse(text: str) -> Reference:
    """The parts of an image's name as Docker understands them."""
    name, tag, digest = split(text)
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return Reference(text, first, rest, tag, digest)
    return Reference(text, HUB, name, tag, digest)
