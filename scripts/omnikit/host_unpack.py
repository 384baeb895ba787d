"""Put the files of a shipped archive in their places: only what differs, each file whole.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from omnikit.host_records import write_atomically


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
    """Rendered files that unpacking would create, change or remove. Changes nothing."""
    found: dict[str, str] = {}
    if not zipfile.is_zipfile(source):
        return found
    with zipfile.ZipFile(source) as archive:
        members = _members(archive)
        for name, entry in members.items():
            path = work_dir / name
            if not path.is_file():
                found[name] = "create"
            elif path.read_bytes() != archive.read(entry):
                found[name] = "change"
    found.update(dict.fromkeys(_strangers(work_dir, set(members)), "remove"))
    return {name: what for name, what in found.items() if name.startswith("bundle/")}


def _strangers(work_dir: Path, wanted: set[str]) -> list[str]:
    """Files below bundle/ that an earlier deployment left and this one does not have."""
    found = []
    for folder, _, names in os.walk(work_dir / "bundle"):
        for name in names:
            relative = str((Path(folder) / name).relative_to(work_dir))
            if relative not in wanted:
                found.append(relative)
    return found


def unpack(source: Path, work_dir: Path) -> bool:
    """Write what differs below work_dir, remove what is no longer there; True when anything was."""
    if not zipfile.is_zipfile(source):
        return False
    changed = False
    with zipfile.ZipFile(source) as archive:
        members = _members(archive)
        for name, entry in members.items():
            path = work_dir / name
            data = archive.read(entry)
            mode = (entry.external_attr >> 16) & 0o777
            if path.is_file() and path.read_bytes() == data:
                path.chmod(mode)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data.decode(), mode)
            changed = True
        for name in _strangers(work_dir, set(members)):
            (work_dir / name).unlink()
            changed = True
    return changed
