"""Wheels in a folder of this host: which package each is of, and whether it is whole."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Iterable, Optional, Sequence

from hostkit.base.errors import InputError


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


def unfit(path: Path, machine: str = "", python: str = "") -> Optional[str]:
    """Why a wheel cannot be for a machine (uname's word) and a Python (3.11), by its name's tags.

    None when it can, or when nothing is known.

    >>> unfit(Path("vllm-0.9.0-cp311-cp311-linux_x86_64.whl"), "aarch64", "3.11")
    'it is for x86_64, not for aarch64'
    >>> unfit(Path("vllm-0.9.0-py3-none-any.whl"), "aarch64", "3.11")
    """
    tags = path.name[: -len(".whl")].split("-")[-3:]
    if len(tags) < 3:
        return None
    pythons, abis, places = (tag.split(".") for tag in tags)
    if machine and not any(place == "any" or _is_for(place, machine) for place in places):
        return f"it is for {' and '.join(map(_machine, places))}, not for {machine}"
    if python and not any(_takes(one, "abi3" in abis, python) for one in pythons):
        return f"it is for {' and '.join(pythons)}, not for Python {python}"
    return None


def check_fit(paths: Iterable[Path], machine: str, python: str = "") -> None:
    """Raise InputError that names the wheels which cannot be for a machine and a Python."""
    wrong = [f"{path.name}: {why}" for path in paths if (why := unfit(path, machine, python))]
    if wrong:
        raise InputError(
            "these wheels are for another Python version or machine:\n  " + "\n  ".join(wrong),
            todo="build them where they are to run: scripts/build_from_source.sh --only build on a"
            " host of that architecture, or in the container: --in-container NAME",
        )


_PLACE = re.compile(r"(?:linux|(?:many|musl)linux(?:1|2010|2014|_\d+_\d+))_(.+)")
_PYTHON = re.compile(r"(cp|py)(\d)(\d*)")


def _machine(place: str) -> str:
    found = _PLACE.fullmatch(place)
    return found[1] if found else place


def _is_for(place: str, machine: str) -> bool:
    found = _PLACE.fullmatch(place)
    return found is not None and found[1] == machine


def _takes(tag: str, stable: bool, python: str) -> bool:
    """Whether a Python takes a tag: cp311 is for that one, py3, py39 and abi3 for later ones."""
    found = _PYTHON.fullmatch(tag)
    if found is None:
        return False
    major, minor = (int(part) for part in python.split(".")[:2])
    if int(found[2]) != major:
        return False
    if not found[3]:
        return True
    older = found[1] == "py" or stable
    return int(found[3]) <= minor if older else int(found[3]) == minor


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
