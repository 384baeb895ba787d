"""What a change of source files asks of the packages that were installed from them. Pure.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Iterable

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
        why.append(f"built from: {_some(native)}")
    if package:
        why.append(f"describes a package: {_some(package)}")
    if python and not editable:
        why.append(f"copied into a package: {_some(python)}")
    if not why:
        said = "only files that are used where they are" if python else "nothing of a package"
        why.append(f"{said} changed")
    rebuild = bool(native) or (not editable and bool(package or python))
    return {"reinstall": bool(rebuild or package), "rebuild": rebuild, "why": "; ".join(why)}


def used(paths: Iterable[str]) -> list[str]:
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


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
