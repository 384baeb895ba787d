"""Which files lie in a folder of this machine: a mirror that is mounted, a copy on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from omnikit.errors import InputError
from omnikit.weights import download_checksums
from omnikit.weights.download_types import Listing, RemoteFile


def of_folder(folder: Path, sums: Optional[dict[str, str]]) -> Listing:
    """All files below a folder but hidden ones and checksums. Raises InputError, ActionError."""
    if not folder.is_dir():
        raise InputError(
            "there is no such folder.",
            where=str(folder).partition("?")[0],  # an address without its scheme may have a token
            todo="mend weights.download.source: a hub's name (modelscope, huggingface),"
            " http(s)://HOST/FOLDER, or a folder of this machine",
        )
    if sums is None:
        sums = _published(folder)
    files, lost, notes = [], {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or name in download_checksums.NAMES:
            continue
        if path.is_file():
            files.append(_file(path, name, sums.get(name, "")))
        elif path.is_symlink() and path.is_dir():
            notes.append(f"{name} is a link to a folder, which is not followed")
        elif path.is_symlink():
            lost[name] = "a link that leads to no file"
    download_checksums.all_there(sums, {file.name for file in files}, str(folder), lost)
    return Listing(f"folder:{folder.absolute()}", "", files, lost=lost, notes=notes)


def _file(path: Path, name: str, digest: str) -> RemoteFile:
    status = path.stat()
    version = f"mtime:{status.st_mtime_ns}-{status.st_size}"
    return RemoteFile(name, path.absolute().as_uri(), status.st_size, digest, version)


def _published(folder: Path) -> dict[str, str]:
    for name in download_checksums.NAMES:
        if (folder / name).is_file():
            return download_checksums.read(folder / name, "mend it, or give --checksums FILE")
    return {}
