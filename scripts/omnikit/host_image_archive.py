"""An archive of an image (docker save): its check sum, and what it holds.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnikit.errors import InputError
from omnikit.host_image_progress import SAY_S
from omnikit.log import say

_BLOCK = 1 << 22
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Content:
    """The images in an archive: ids (the engines differ in what they call one) and tags."""

    ids: tuple[str, ...]
    tags: tuple[str, ...]


def beside(path: Path) -> Path:
    """The file with an archive's check sum."""
    return path.with_name(f"{path.name}.sha256")


def checksum(path: Path) -> str:
    """SHA-256 of a file, with a line of progress now and then."""
    digest = hashlib.sha256()
    said = time.monotonic()
    done, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if time.monotonic() - said > SAY_S:
                said = time.monotonic()
                say(f"reading {path.name}: {done >> 20} of {size >> 20} MiB")
    return digest.hexdigest()


def expected(path: Path) -> str:
    """The check sum that stands beside an archive. Raises InputError when there is none."""
    try:
        text = beside(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        text = []
    if not text or not _HEX.fullmatch(text[0]):
        raise InputError(
            f"the archive's check sum is not there: expected {beside(path)}.",
            where=str(path),
            todo="make both with: scripts/pull_image.sh REPO:TAG --export FILE,"
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


def content(path: Path) -> Content:
    """The ids and tags in an archive. Raises InputError when it is none."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = set(archive.getnames())
            images = _json(archive, "manifest.json")
            index = _json(archive, "index.json") if "index.json" in names else {}
            ids = [hexes[-1] for image in images if (hexes := _HEX.findall(image["Config"]))]
            ids += [entry["digest"].partition(":")[2] for entry in index.get("manifests", [])]
            tags = [tag for image in images for tag in image.get("RepoTags") or ()]
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"this is not an archive of an image ({error}).",
            where=str(path),
            todo="make one: scripts/pull_image.sh REPO:TAG --export FILE",
        ) from error
    return Content(tuple(dict.fromkeys(ids)), tuple(tags))


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return json.loads(file.read())
