"""Wheels in a folder of this host: which package each is of, and whether it is whole.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Optional, Sequence

from omnikit.errors import InputError


def normal(name: str) -> str:
    """A package's name as packages are compared: omni_infer is omni-infer."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find(folder: Path, packages: Sequence[str]) -> dict[str, list[Path]]:
    """The wheels of a folder by package; packages without one have an empty list."""
    found: dict[str, list[Path]] = {name: [] for name in packages}
    by_normal = {normal(name): name for name in packages}
    for path in sorted(folder.glob("*.whl")):
        name = by_normal.get(normal(path.name.split("-")[0]))
        if name is not None:
            found[name].append(path)
    return found


def version(path: Path) -> str:
    """The version that a wheel's name says."""
    return (*path.name.split("-"), "")[1]


def sha256(path: Path) -> str:
    """The hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fault(path: Path) -> Optional[str]:
    """What is wrong with a wheel's file; None when it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return str(error)
    return None if broken is None else f"{broken} in it is broken"


def one_each(folder: Path, packages: Sequence[str], optional: Sequence[str]) -> dict[str, Path]:
    """The one wheel of each package that has one.

    Raises InputError when a package has several, or a needed one has none or a broken one.
    """
    found = find(folder, packages)
    for name, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"{name} has {len(paths)} wheels, which one is meant is not guessed:"
                f" {', '.join(path.name for path in paths)}.",
                where=str(folder),
                todo="delete all but one, or build again: --only build",
            )
    free = {normal(name) for name in optional}
    missing = [name for name, paths in found.items() if not paths and normal(name) not in free]
    if missing:
        there = ", ".join(path.name for path in sorted(folder.glob("*.whl"))) or "none"
        raise InputError(
            f"there is no wheel of {' and '.join(missing)}; wheels there: {there}.",
            where=str(folder),
            todo="build them first: scripts/build_from_source.sh --only build",
        )
    wheels = {name: paths[0] for name, paths in found.items() if paths}
    for path in wheels.values():
        wrong = fault(path)
        if wrong is not None:
            raise InputError(
                f"this wheel is not whole: {wrong}.",
                where=str(path),
                todo="delete it and build again: scripts/build_from_source.sh --only build",
            )
    return wheels
