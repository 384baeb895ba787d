"""Images: their names, which this host has, and space where they live."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError
from hostkit.containers.engines import Engine, normal

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


MIB = 1 << 20


@dataclass(frozen=True)
class Found:
    """An image on this host. name: what it is called here, which a container can be made from.
    platform: what it is for, "" where it does not say. layers: hashes of their unpacked files.
    """

    id: str
    name: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    platform: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created: str = ""
    layers: tuple[str, ...] = ()

    def digest(self, wanted: Reference) -> str:
        """Its digest at the registry that the name says; empty when it came without one."""
        own = [d for d in self.digests if d.startswith(f"{wanted.name}@")]
        return (own or [*self.digests, "@"])[0].partition("@")[2]


def find(engine: Engine, image: str) -> Optional[Found]:
    """The image of a name, or None. One with a digest may be here under another name."""
    there = engine.inspect("image", image)
    if there is not None:
        return _found(there, image)
    digest = parse(image).digest
    if not digest:
        return None
    listed = engine.ask(
        *("image", "ls", "--digests", "--no-trunc", "--format", "{{.Repository}}@{{.Digest}}")
    )
    for name in listed.out.split():
        if name.endswith(f"@{digest}"):
            there = engine.inspect("image", name)
            if there is not None:
                return _found(there, name)
    return None


def _found(there: dict[str, Any], name: str) -> Found:
    return Found(
        id=bare(there["Id"]),
        name=name,
        tags=tuple(there.get("RepoTags") or ()),
        digests=tuple(there.get("RepoDigests") or ()),
        size=int(there.get("Size") or 0),
        platform=platform(there),
        labels=dict((there.get("Config") or {}).get("Labels") or there.get("Labels") or {}),
        created=str(there.get("Created") or ""),
        layers=layers(there),
    )


def platform(there: dict[str, Any]) -> str:
    """OS/ARCH of an image as the engine describes it; "" where it does not say."""
    return normal("/".join(there.get(key) or "" for key in ("Os", "Architecture", "Variant")))


def layers(there: dict[str, Any]) -> tuple[str, ...]:
    """The layers of an image as the engine describes it, from the lowest."""
    return tuple((there.get("RootFS") or {}).get("Layers") or ())


def bare(image_id: str) -> str:
    """An image's id without its sha256: in front, which Podman leaves away."""
    return image_id[len("sha256:") :] if image_id.startswith("sha256:") else image_id


def is_called(tags: tuple[str, ...], image: str) -> bool:
    """Whether one of an image's tags is the name. Podman shows names with their registry."""
    name, tag, _ = split(image)
    wanted = f"{name}:{tag or 'latest'}"
    return any(
        found == wanted or found in (f"{before}{wanted}" for before in _BEFORE) for found in tags
    )


_BEFORE = ("localhost/", "docker.io/", "docker.io/library/")


def folder(engine: Engine) -> Optional[Path]:
    """Where the engine keeps its images; None when that is not on this machine."""
    template = "{{.DockerRootDir}}" if engine.kind == "docker" else "{{.Store.GraphRoot}}"
    path = Path(engine.ask("info", "--format", template).out.strip())
    return path if path.is_absolute() and path.is_dir() else None


def free_mib(path: Path) -> int:
    """Free space on the disk of a folder."""
    return shutil.disk_usage(path).free // MIB


def check_space(path: Optional[Path], wanted_mib: float, what: str, setting: str) -> None:
    """Raise InputError when a folder's disk has less free space than wanted."""
    if path is None:
        return
    free = free_mib(path)
    if free < wanted_mib:
        raise InputError(
            f"too little space for {what}: {free} MiB free on the disk of {path},"
            f" {wanted_mib:.0f} MiB needed{setting}.",
            todo=f"make room: docker system df; docker image prune; df -h {path}",
        )


def check_images_space(engine: Engine, wanted_mib: float, image: str) -> None:
    """Raise InputError when there is too little space where images live."""
    check_space(folder(engine), wanted_mib, f"the image {image}", " (image.free_mib)")
