"""What servers use of a source tree's copy on this host, as check sums: when one changes, what was
started or installed from it is out of date. Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Mapping, Optional, Sequence

from hostkit.copy import needs, tree
from hostkit.copy import record as copy_record


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
        written = (Path(folder) / copy_record.RECORD).stat().st_mtime_ns
    except OSError:
        return None
    return _used(folder, tuple(installed), written)


def digest(folder: Optional[str]) -> Optional[str]:
    """The check sum of what servers use of a copy; None where there is no copy."""
    found = used(folder) if folder else None
    return found.digest if found else None


@lru_cache(maxsize=8)  # several nodes of a host ask for the same one
def _used(folder: str, installed: tuple[str, ...], written: int) -> Optional[Used]:
    record = copy_record.read(folder)
    if record is None:
        return None
    files = {
        path: one
        for path, one in copy_record.files(record).items()
        if needs.kind(path) != needs.BESIDE
    }
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
        if needs.kind(path) in (needs.BUILT, needs.PACKAGE)
        and _below(path, place)
        and not any(_below(path, other) for other in inside)
    }


def _below(path: str, place: str) -> bool:
    return place == "." or PurePosixPath(place) in PurePosixPath(path).parents
