"""A shipped archive: what it says of this host, and its files put in their places: only what
differs, each file whole.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostkit.base.errors import InputError
from hostkit.base.lock import GOOD, INCOMING
from hostkit.base.writing import private_folder, write_atomically, write_private
from hostkit.files import regular


def read_host(source: Path) -> dict[str, Any]:
    """host.json from a shipped archive, a work directory, or a file.

    Where a work directory's own is damaged, from the archives in it.
    """
    for place in (source, source / INCOMING, source / GOOD):
        if source.is_dir() and (place is source or place.is_file()):
            with suppress(InputError):
                return _read_host(place)
    return _read_host(source)


def _read_host(source: Path) -> dict[str, Any]:
    try:
        if source.is_file() and zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                data = archive.read("bundle/host.json")
        else:
            path = source / "bundle" / "host.json" if source.is_dir() else source
            data = regular.data(path)
        host: dict[str, Any] = json.loads(data)
        if not isinstance(host, dict) or "nodes" not in host:
            raise ValueError("it describes no nodes")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"no deployment is described here: {error}.",
            where=str(source),
            todo="deploy first, or give --host-file",
        ) from error
    return host


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries by their place below the work directory: rendered files, and code in scripts/."""
    places = {}
    for entry in archive.infolist():
        if entry.filename.startswith("bundle/"):
            places[entry.filename] = entry
        elif entry.filename != "__main__.py":
            places[f"scripts/{entry.filename}"] = entry
    return places


def differences(source: Path, work_dir: Path) -> dict[str, str]:
    """Files that unpacking would create, change or remove. Changes nothing."""
    found: dict[str, str] = {}
    if not zipfile.is_zipfile(source):
        return found
    with zipfile.ZipFile(source) as archive:
        members = _members(archive)
        for name, entry in members.items():
            path = work_dir / name
            if not os.path.lexists(path):
                found[name] = "create"
            elif not _is_as_shipped(path, archive.read(entry), _mode(entry)):
                found[name] = "change"
    found.update(dict.fromkeys(_strangers(work_dir, set(members)), "remove"))
    return found


def _mode(entry: zipfile.ZipInfo) -> int:
    return (entry.external_attr >> 16) & 0o777


def _is_as_shipped(path: Path, data: bytes, mode: int) -> bool:
    """Whether a file, and no link to one, has this content and mode."""
    try:
        there = path.lstat().st_mode
        return stat.S_ISREG(there) and stat.S_IMODE(there) == mode and (path.read_bytes() == data)
    except OSError:
        return False


def is_good(source: Path, work_dir: Path) -> bool:
    """Whether an archive is the one that was proved last."""
    try:
        return source.read_bytes() == (work_dir / GOOD).read_bytes()
    except OSError:
        return False


def _clear_the_way(path: Path, top: Path) -> None:
    """Remove what keeps a file from its place: a folder there, or a file where its folder is."""
    for one in (path, *path.parents):
        if one == top:
            break
        wrong = one.is_symlink() or (one.is_dir() if one == path else one.is_file())
        if wrong and one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        elif wrong:
            one.unlink()


def _strangers(work_dir: Path, wanted: set[str]) -> list[str]:
    """Files below bundle/ that an earlier deployment left and this one does not have."""
    found = []
    for folder, _, names in os.walk(work_dir / "bundle"):
        for name in names:
            relative = str((Path(folder) / name).relative_to(work_dir))
            if relative not in wanted:
                found.append(relative)
    return found


def adopt(work_dir: Path, source: Path) -> None:
    """Archives where earlier versions had them, for all to read, go where only we can.

    source: the one that this runs from.
    """
    for name in ("good.pyz", "incoming.pyz"):
        old = work_dir / name
        if old.is_file() and not old.is_symlink() and old.resolve() != source.resolve():
            if not (work_dir / "archives" / name).exists():
                write_private(work_dir / "archives" / name, old.read_bytes())
            old.unlink()


def unpack(source: Path, work_dir: Path) -> bool:
    """Write what differs below work_dir, remove what is no longer there; True when anything was."""
    if not zipfile.is_zipfile(source):
        return False
    changed = False
    with zipfile.ZipFile(source) as archive:
        members = _members(archive)
        for name, entry in members.items():
            path = work_dir / name
            data, mode = archive.read(entry), _mode(entry)
            if _is_as_shipped(path, data, mode):
                continue
            _clear_the_way(path, work_dir)
            if name.startswith("bundle/"):
                private_folder(work_dir / "bundle")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data.decode(), mode)
            path.chmod(mode)  # whatever the umask is
            changed = True
        for name in _strangers(work_dir, set(members)):
            (work_dir / name).unlink()
            changed = True
    return changed
