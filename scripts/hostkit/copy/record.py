"""What stands beside a source tree's copy: which source it is, whether it is whole, an index; and
what servers use of it, as check sums. When one changes, what was started or installed from it is
out of date.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Iterable, Mapping, Optional, Sequence

from hostkit.base.log import some
from hostkit.base.writing import read_back, write_atomically
from hostkit.copy import tree
from hostkit.copy.tree import Index, Manifest


@dataclass(frozen=True)
class Used:
    """complete: no transfer was cut. digest: of all that servers use. built: check sums of what an
    installation is made from, by folder.
    """

    complete: bool
    digest: str
    built: Mapping[str, str]


def used(folder: str, installed: Sequence[str] = ()) -> Optional[Used]:
    """A copy that the toolkit has made; None where the folder is none.

    installed: folders in it that packages are installed from, "." for its top.
    """
    try:
        written = (Path(folder) / RECORD).stat().st_mtime_ns
    except OSError:
        return None
    return _used(folder, tuple(installed), written)


def digest(folder: Optional[str]) -> Optional[str]:
    """The check sum of what servers use of a copy; None where there is no copy."""
    found = used(folder) if folder else None
    return found.digest if found else None


@lru_cache(maxsize=8)  # several nodes of a host ask for the same one
def _used(folder: str, installed: tuple[str, ...], written: int) -> Optional[Used]:
    record = read(folder)
    if record is None:
        return None
    files = {path: one for path, one in recorded(record).items() if kind(path) != BESIDE}
    return Used(
        bool(record["complete"]),
        tree.digest({path: one for path, one in files.items() if one.kind != tree.FOLDER}),
        {place: tree.digest(_built(files, place, installed)) for place in installed},
    )


def _built(files: tree.Manifest, place: str, others: Sequence[str]) -> tree.Manifest:
    """Files that decide how the package in a folder is built, without other packages' files."""
    inside = [one for one in others if one != place and _below(one, place)]
    return {
        path: one
        for path, one in files.items()
        if kind(path) in (BUILT, PACKAGE)
        and _below(path, place)
        and not any(_below(path, other) for other in inside)
    }


def _below(path: str, place: str) -> bool:
    return place == "." or PurePosixPath(place) in PurePosixPath(path).parents


RECORD, INDEX = f"{tree.OURS}json", f"{tree.OURS}index.json"
Record = dict[str, Any]
# What stands for a file: tree.Entry, and of the index size, mtime, ctime, inode, check sum.
_ENTRY, _SEEN = (str, int, int, int, str), (int, int, int, int, str)


def read(folder: str) -> Optional[Record]:
    """The record of a copy; None when this folder is none.

    Keys: complete, source, revision, digest, at, files. A copy that is not complete was cut off:
    nothing should be installed from it.
    """
    record = read_back(Path(folder) / RECORD)
    files, sent = record.get("files"), record.get("sent", [])
    good = isinstance(record.get("digest"), str) and isinstance(record.get("complete"), bool)
    good = good and isinstance(files, dict) and _are_lists(files, _ENTRY)
    return record if good and isinstance(sent, list) and _are_in(sent, files) else None


def _are_lists(found: Mapping[str, Any], kinds: Sequence[type]) -> bool:
    """Whether all of it are lists of such values: what is not was damaged, or is not ours."""
    return all(isinstance(one, list) and tuple(map(type, one)) == kinds for one in found.values())


def _are_in(sent: Sequence[Any], files: Any) -> bool:
    return all(isinstance(path, str) and path in files for path in sent)


def recorded(record: Record) -> Manifest:
    """What is in the copy."""
    return tree.from_json(record["files"])


def changed(before: Record, after: Record) -> tuple[str, ...]:
    """The paths that differ between two records, for example of the last installation and now."""
    return tree.compare(recorded(after), recorded(before)).all


def index(folder: str) -> Index:
    """What the files looked like when they were read last; empty when that is not known."""
    found = read_back(Path(folder) / INDEX)
    return found if _are_lists(found, _SEEN) else {}


def write_index(folder: str, made: Index) -> None:
    """Write the index."""
    write_atomically(Path(folder) / INDEX, json.dumps(made) + "\n")


def start(folder: str, source: Record, wanted: Manifest, sent: tuple[str, ...]) -> None:
    """Write that a transfer is under way, and what it brings."""
    record = {**_described(source, wanted), "complete": False, "sent": sent}
    write_atomically(Path(folder) / RECORD, json.dumps(record) + "\n")


def complete(
    folder: str, old: Optional[Record], source: Record, wanted: Manifest, made: Index
) -> None:
    """Write that the copy is whole, where that is not written already."""
    new = json.loads(json.dumps({**_described(source, wanted), "complete": True}))
    if {**(old or {}), "at": new["at"]} != new:
        write_atomically(Path(folder) / RECORD, json.dumps(new) + "\n")
    if made != index(folder):
        write_index(folder, made)


def _described(source: Record, wanted: Manifest) -> Record:
    return {
        "source": source["source"],
        "revision": source["revision"],
        "digest": source["digest"],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": wanted,
    }


# Sources of extensions, and what decides how they are built.
_NATIVE = frozenset(
    [
        ".c",
        ".cc",
        ".cpp",
        ".cxx",
        ".h",
        ".hh",
        ".hpp",
        ".hxx",
        ".inl",
        ".cu",
        ".cuh",
        ".asc",
        ".s",
        ".pyx",
        ".pxd",
        ".rs",
        ".cmake",
        ".proto",
        ".patch",
        ".diff",
    ]
)
_BUILD_NAMES = frozenset(
    [
        "setup.py",
        "CMakeLists.txt",
        "Makefile",
        "meson.build",
        "build.sh",
        "build.py",
        "Cargo.toml",
        "Cargo.lock",
    ]
)
# What an installation takes names, versions and dependencies from.
_PACKAGE_NAMES = frozenset(["pyproject.toml", "setup.cfg", "MANIFEST.in", "version.txt"])
_BESIDE = frozenset(
    ["test", "tests", "doc", "docs", "benchmark", "benchmarks", "example", "examples", ".github"]
)
_BESIDE_SUFFIXES = frozenset([".md", ".rst", ".png", ".jpg", ".svg", ".gif", ".pdf", ".ipynb"])
_BESIDE_NAMES = frozenset(["LICENSE", "NOTICE", ".gitignore", ".gitattributes", ".gitmodules"])
_SHOWN = 3
BUILT, PACKAGE, USED, BESIDE = "built", "package", "used", "beside"


def needs(changed_paths: Iterable[str], *, editable: bool = True) -> dict[str, Any]:
    """{"reinstall", "rebuild", "why"} for paths that were created, changed or deleted.

    editable: the packages run from this source, so a changed Python file needs neither. Otherwise
    what is in a package has to be built into a wheel again and installed.
    """
    by_kind: dict[str, list[str]] = {BUILT: [], PACKAGE: [], USED: [], BESIDE: []}
    for text in sorted(set(changed_paths)):
        by_kind[kind(text)].append(text)
    native, package, python = by_kind[BUILT], by_kind[PACKAGE], by_kind[USED]
    why = []
    if native:
        why.append(f"built from: {some(native, _SHOWN)}")
    if package:
        why.append(f"describes a package: {some(package, _SHOWN)}")
    if python and not editable:
        why.append(f"copied into a package: {some(python, _SHOWN)}")
    if not why:
        said = "only files that are used where they are" if python else "nothing of a package"
        why.append(f"{said} changed")
    rebuild = bool(native) or (not editable and bool(package or python))
    return {"reinstall": bool(rebuild or package), "rebuild": rebuild, "why": "; ".join(why)}


def among(paths: Iterable[str]) -> list[str]:
    """Of these paths those that servers use: what is beside the packages is left out."""
    return sorted(path for path in set(paths) if kind(path) != BESIDE)


def kind(text: str) -> str:
    """What a path of the source is to the packages: BUILT, PACKAGE, USED as it is, or BESIDE."""
    path = PurePosixPath(text)
    if _is_native(path):
        return BUILT
    if _beside(path):
        return BESIDE
    return PACKAGE if path.name in _PACKAGE_NAMES or _is_requirements(path) else USED


def _is_native(path: PurePosixPath) -> bool:
    if path.suffix.lower() in _NATIVE or path.name in _BUILD_NAMES:
        return not _beside(path)
    # build/ at the top holds omni-infer's build scripts.
    return path.parts[:1] == ("build",) and not _beside(path)


def _is_requirements(path: PurePosixPath) -> bool:
    return path.suffix == ".txt" and (
        path.name.startswith("requirements") or path.parent.name == "requirements"
    )


def _beside(path: PurePosixPath) -> bool:
    return (
        not _BESIDE.isdisjoint(path.parts[:-1])
        or path.suffix.lower() in _BESIDE_SUFFIXES
        or path.name in _BESIDE_NAMES
    )
