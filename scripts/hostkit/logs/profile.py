"""The jobs of a profile on a host: room for traces, what was written, an archive of it, gone again.

Only what was not there before is taken, and removed.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostkit.base.errors import ActionError, InputError
from hostkit.files import regular

# The profiler of PyTorch writes a file for each worker, that of Ascend a folder.
TRACES = (".trace.json", ".trace.json.gz")
ASCEND = "_ascend_pt"
ANALYSED = "ASCEND_PROFILER_OUTPUT"
_MIB = 1 << 20


def prepare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "profile-prepare": make the folders for traces and see that there is room.

    parameters: folders (by node), free_mib. Returns what is in each folder already.
    Raises InputError where traces could not be written.
    """
    before = {}
    for node, folder in parameters["folders"].items():
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"\0" * _MIB)
                file.flush()
            disk = os.statvfs(path)
        except OSError as error:
            raise InputError(
                f"the traces of {node} cannot be written: {error.strerror}.",
                where=str(path),
                todo=f"make room or choose another place: df -h {path.parent}; profiling.dir",
            ) from error
        free = disk.f_frsize * disk.f_bavail // _MIB
        if free < parameters["free_mib"]:
            raise InputError(
                f"{free} MiB are free for the traces of {node}, profiling.free_mib wants"
                f" {parameters['free_mib']}.",
                where=str(path),
                todo="make room, or choose another place: profiling.dir",
            )
        before[node] = sorted(entry.name for entry in path.iterdir())
    return {"changed": False, "before": before}


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "profile-look": by node, how many workers have written, and how many bytes.

    parameters: folders, before (of prepare).
    """
    found = {}
    for node, entries in _new(parameters).items():
        size = sum(_size(path) for path in entries)
        found[node] = {"workers": sum(map(_written, entries)), "bytes": size}
    return {"changed": False, "nodes": found}


def collect(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "profile-collect": all that is new as one archive, each node's in a folder of its name.

    parameters: folders, before, work_dir. Returns path, bytes and sha256 of the archive, files.
    """
    jobs = Path(parameters["work_dir"]) / "jobs"
    files = [
        (path, f"{node}/{path.relative_to(parameters['folders'][node])}")
        for node, entries in _new(parameters).items()
        for entry in entries
        for path in _files(entry)
    ]
    name = ""
    try:
        jobs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="omnikit-profile-", suffix=".tar.gz", dir=jobs)
        os.close(handle)
        with tarfile.open(name, "w:gz", compresslevel=1) as archive:
            for path, inside in files:
                archive.add(path, inside, recursive=False)
        digest = regular.sha256(Path(name))
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, PermissionError) and str(error.filename) in {str(p) for p, _ in files}:
            raise _unreadable(error) from error
        raise ActionError(
            f"the traces cannot be packed: {error.strerror}.",
            where=str(jobs),
            todo=f"make room: df -h {jobs.parent}; the traces are still in their folders",
        ) from error
    size = Path(name).stat().st_size
    return {
        "changed": False,
        **{"path": name, "bytes": size, "sha256": digest, "files": len(files)},
    }


def clear(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "profile-clear": remove what is new, and nodes' folders that are empty then.

    parameters: folders, before. Returns in left what could not be removed.
    """
    removed: list[Path] = []
    left: list[str] = []
    for node, folder in parameters["folders"].items():
        try:
            entries = _entries(node, parameters)
        except ActionError:
            left.append(folder)
            continue
        for path in entries:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        left += [str(path) for path in entries if os.path.lexists(path)]
        removed += [path for path in entries if not os.path.lexists(path)]
        with suppress(OSError):  # it has something else in it, or is gone
            Path(folder).rmdir()
    return {"changed": bool(removed), "left": left}


def _new(parameters: dict[str, Any]) -> dict[str, list[Path]]:
    """By node, what is in its folder and was not there before."""
    return {node: _entries(node, parameters) for node in parameters["folders"]}


def _entries(node: str, parameters: dict[str, Any]) -> list[Path]:
    known = set(parameters["before"].get(node, []))
    path = Path(parameters["folders"][node])
    return [entry for entry in _inside(path) if entry.name not in known]


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, none where it is not there. Raises ActionError where we may not look."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except FileNotFoundError:  # the profiler removes what it has worked up
        return []
    except PermissionError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> ActionError:
    """Who runs the servers is another one than who reads: root in containers, mostly."""
    return ActionError(
        f"the traces cannot be read as user {os.geteuid()}: {error.strerror}.",
        where=str(error.filename),
        todo="read them as root, or set container.user (null: who the toolkit is on the host)",
    )


def _files(entry: Path) -> list[Path]:
    """A file, or all files in a folder; links are left out."""
    if entry.is_dir() and not entry.is_symlink():
        return [file for child in _inside(entry) for file in _files(child)]
    return [entry] if entry.is_file() and not entry.is_symlink() else []


def _size(entry: Path) -> int:
    total = 0
    for path in _files(entry):
        with suppress(OSError):  # the profiler removes what it has worked up
            total += path.stat().st_size
    return total


def _written(entry: Path) -> bool:
    """Whether this is what one worker leaves, ready to be read."""
    if entry.name.endswith(ASCEND):
        try:
            return (entry / ANALYSED / "trace_view.json").is_file()
        except PermissionError as error:
            raise _unreadable(error) from error
    return entry.name.endswith(TRACES)
