"""An archive of an image (docker save): its check sum, and what it holds."""

from __future__ import annotations

import json
import re
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from hostkit.base.command import SAY_S
from hostkit.base.errors import InputError
from hostkit.base.log import say
from hostkit.containers.engines import differ, normal
from hostkit.containers.image_look import is_called
from hostkit.files import regular

_HEX = re.compile(r"[0-9a-f]{64}")
# Where an index has the names of its images: containerd's whole, OCI's own, often a tag alone.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class Image:
    """One of an archive's images: ids (the engines differ in what they call it), tags, and the
    platform that it is for, "" where it does not say.
    """

    ids: tuple[str, ...]
    tags: tuple[str, ...]
    platform: str


@dataclass(frozen=True)
class Content:
    """The images in an archive; tags: the names that it gives them, each once."""

    images: tuple[Image, ...]
    tags: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all."""
        return tuple(dict.fromkeys(id_ for image in self.images for id_ in image.ids))


def beside(path: Path) -> Path:
    """The file with an archive's check sum."""
    return path.with_name(f"{path.name}.sha256")


def checksum(path: Path) -> str:
    """SHA-256 of a file, with a line of progress now and then."""
    said = time.monotonic()
    done, size = 0, path.stat().st_size

    def passed(count: int) -> None:
        nonlocal said, done
        done += count
        if time.monotonic() - said > SAY_S:
            said = time.monotonic()
            say(f"reading {path.name}: {done >> 20} of {size >> 20} MiB")

    return regular.sha256(path, passed)


def expected(path: Path) -> str:
    """The check sum that stands beside an archive. Raises InputError when there is none."""
    try:
        text = regular.text(beside(path)).split()
    except (OSError, UnicodeDecodeError):
        text = []
    if not text or not _HEX.fullmatch(text[0]):
        raise InputError(
            f"the archive's check sum is not there: expected {beside(path)}.",
            where=str(path),
            todo="make both with: scripts/pull_image.py REPO:TAG --export FILE,"
            f" or: sha256sum {path} > {beside(path)}",
        )
    return text[0]


def verify(path: Path, sha256: str) -> None:
    """Raise InputError when an archive is not there or not whole."""
    if not path.is_file():
        raise InputError("there is no such archive.", where=str(path))
    found = checksum(path)
    if found != sha256:
        raise InputError(
            f"the archive is damaged or cut short: SHA-256 {found[:16]}…, expected"
            f" {sha256[:16]}…, {path.stat().st_size} bytes. Nothing was loaded.",
            where=str(path),
            todo="copy or export it again, with its .sha256 file",
        )


def check_platform(path: Path, image: str, found: Sequence[str], wanted: str) -> None:
    """Raise InputError when none of the platforms found in an archive is the wanted one."""
    if found and all(differ(one, wanted) for one in found):
        raise InputError(
            f"the archive holds {image} for {' and '.join(found)}, {wanted} is needed.",
            where=str(path),
            todo="export the right one: scripts/pull_image.py"
            f" {image} --export FILE --set image.platform={wanted}",
        )


def content(path: Path) -> Content:
    """The images in an archive: of docker save, or an OCI layout. Raises InputError for others."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = set(archive.getnames())
            saved, indexed = [], []
            if "manifest.json" in names or "index.json" not in names:
                saved = [_saved(archive, names, one) for one in _json(archive, "manifest.json")]
            if "index.json" in names:  # beside the other: newer Docker writes both
                indexed = _indexed(archive, names, _json(archive, "index.json"), (), ())
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"this is not an archive of an image ({error}).",
            where=str(path),
            todo="make one: scripts/pull_image.py REPO:TAG --export FILE",
        ) from error
    tags = [tag for image in saved or indexed for tag in image.tags]
    return Content((*saved, *indexed), tuple(dict.fromkeys(tags)))


def layers(path: Path, image: str) -> list[str]:
    """The layers of one of an archive's images, from the lowest. Raises InputError."""
    why: object = image
    try:
        with tarfile.open(path, "r:") as archive:
            for one in _json(archive, "manifest.json"):
                if is_called(tuple(one.get("RepoTags") or ()), image):
                    return [str(x) for x in _json(archive, one["Config"])["rootfs"]["diff_ids"]]
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        why = error
    raise InputError(f"it is no archive of docker save with this image ({why}).", where=str(path))


def _saved(archive: tarfile.TarFile, names: set[str], entry: dict[str, Any]) -> Image:
    """An image of docker save: an entry of manifest.json."""
    file = entry["Config"]
    ids = tuple(_HEX.findall(file)[-1:])
    platform = _platform(_json(archive, file)) if file in names else ""
    return Image(ids, tuple(entry.get("RepoTags") or ()), platform)


def _indexed(
    archive: tarfile.TarFile,
    names: set[str],
    index: dict[str, Any],
    ids: tuple[str, ...],
    tags: tuple[str, ...],
) -> list[Image]:
    """The images of an index, and of indexes in it. ids, tags: of the index itself.

    What is no image, and what an index in it names and the archive lacks (other platforms), is left
    out.
    """
    found: list[Image] = []
    for entry in index["manifests"]:
        digest = entry["digest"].partition(":")[2]
        blob, own = f"blobs/sha256/{digest}", (*ids, digest)
        notes = entry.get("annotations") or {}
        named = tuple(notes[key] for key in _NAMES if key in notes)[:1] or tags
        if blob not in names:
            found += [] if ids else [Image(own, named, "")]
            continue
        inner = _json(archive, blob)
        if "manifests" in inner:
            found += _indexed(archive, names, inner, own, named)
            continue
        config = inner["config"]["digest"].partition(":")[2]
        file, said = f"blobs/sha256/{config}", entry.get("platform")
        platform = _platform(_json(archive, file) if file in names else said or {})
        if said is None or _platform(said):  # builders file what is no image as "unknown"
            found.append(Image((*own, config), named, platform))
    return found


def _platform(data: dict[str, Any]) -> str:
    """The platform that an image's configuration, or an index, names."""
    return normal("/".join(data.get(key) or "" for key in ("os", "architecture", "variant")))


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return json.loads(file.read())
