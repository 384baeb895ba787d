"""The jobs of a source tree's copy on this host: whether a folder may be made one, what differs
before its transfer, and afterwards whether it is what it should be. It is freed of what the source
has not; the record beside the files is written last.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Iterable, Iterator, Optional, Sequence

from hostkit.base import lock
from hostkit.base.errors import ActionError, InputError
from hostkit.copy import record as copy_record
from hostkit.copy import tree
from hostkit.copy.tree import FOLDER, Changes, Excludes, Index, Manifest

_SHOWN = 5
_KINDS = ("create", "update", "mode", "delete")


def begin(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "code-begin": say what differs from the source, and get ready for its transfer.

    parameters: dir, exclude, files (packed), digest, revision, source, keep (folders that must
    stay), replace (also what is no copy of ours), full (read all files), dry_run. Who calls holds
    the host's lock.
    """
    folder = str(parameters["dir"])
    _check_place(folder, parameters["keep"])
    record = copy_record.read(folder)
    _check_ours(folder, record, bool(parameters["replace"]))
    with named(folder):
        return _begin(folder, record, parameters)


def _begin(
    folder: str, record: Optional[copy_record.Record], parameters: dict[str, Any]
) -> dict[str, Any]:
    wanted = tree.unpack(parameters["files"])
    known: Index = {} if parameters["full"] else copy_record.index(folder)
    found = look(folder, Excludes(parameters["exclude"]), known)
    changes = differences(folder, wanted, found.files)
    need = sum(wanted[path].size for path in (*changes.create, *changes.update))
    result: dict[str, Any] = {
        "changed": False,
        **{kind: list(getattr(changes, kind)) for kind in _KINDS},
        "free_bytes": free_bytes(folder),
        "need_bytes": need,
        "was": (record or {}).get("source"),
    }
    if parameters["dry_run"]:
        return result
    if not changes.all:
        copy_record.complete(folder, record, parameters, wanted, found.index)
        return result
    _check_able(folder, changes, need, result["free_bytes"])
    _prepare(folder, parameters, wanted, found.index, changes)
    return {**result, "changed": True}


def finish(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "code-finish": remove what the source has not, compare, write the record.

    parameters: dir, exclude, digest, full, work_dir; owner: for the audit, "": no line.
    """
    with named(str(parameters["dir"])):
        return _finish(str(parameters["dir"]), parameters)


def _finish(folder: str, parameters: dict[str, Any]) -> dict[str, Any]:
    record = copy_record.read(folder)
    if record is None or record["digest"] != parameters["digest"]:
        raise ActionError(
            "somebody else changed this copy of the source meanwhile.",
            where=folder,
            todo="find out who (audit.jsonl in the work directory), then sync again",
        )
    wanted, excludes = copy_record.recorded(record), Excludes(parameters["exclude"])
    if parameters["full"]:
        found = look(folder, excludes, {})
    else:
        sent = {path: wanted[path] for path in record.get("sent", ())}
        found = look(folder, excludes, copy_record.index(folder), sent)
    changes = differences(folder, wanted, found.files)
    if changes.send:
        some = ", ".join(tree.shown(path) for path in changes.send[:_SHOWN])
        raise ActionError(
            f"{len(changes.send)} files are not what they are in the source, the first: {some}.",
            where=folder,
            todo="was the source, or were these files, edited during the transfer? Sync again",
        )
    remove(folder, changes.delete)
    remove_unfinished(folder, wanted)
    copy_record.complete(folder, None, record, wanted, found.index)
    if parameters["owner"]:
        said = f"synced {folder} from {record.get('source')}"
        lock.audit(Path(parameters["work_dir"]), parameters["owner"], said, "ok")
    return {"changed": True, "digest": record["digest"], "read_bytes": found.read}


def _check_place(folder: str, keep: list[str]) -> None:
    why = refusal_here(folder, keep)
    if why is None and Path(folder).exists() and not Path(folder).is_dir():
        why = "it is a file"
    if why is not None:
        raise InputError(
            f"this folder cannot be made a copy of the source: {why}.",
            where=folder,
            todo="set another paths.code_dir, for example /data/omniinfer",
        )


def _check_ours(folder: str, record: Optional[copy_record.Record], replace: bool) -> None:
    if record is not None or replace:
        return
    try:
        there = sorted(os.listdir(tree.raw(folder)))  # noqa: PTH208 (bytes)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}.", where=folder) from error
    if there:
        some = ", ".join(tree.shown(tree.text(name)) for name in there[:_SHOWN])
        raise InputError(
            "this folder is not empty, and nothing says that it is a copy of ours:"
            f" {len(there)} entries, the first: {some}.",
            where=folder,
            todo="set another paths.code_dir; or see what would be removed (--replace --dry-run),"
            " then let it be replaced: --replace",
        )


def _check_able(folder: str, changes: Changes, need: int, free: int) -> None:
    if changes.send and shutil.which("rsync") is None:
        raise InputError(
            "rsync is not installed on this host.",
            todo="install it there (openEuler: dnf install rsync; Debian, Ubuntu: apt-get install"
            " rsync)",
        )
    if need > free:
        raise InputError(
            f"the disk is too full: {need / 2**20:.1f} MiB are needed,"
            f" {free / 2**20:.1f} MiB are free.",
            where=folder,
            todo=f"make room there: df -h {nearest(folder)}",
        )


def _prepare(
    folder: str, parameters: dict[str, Any], wanted: Manifest, index: Index, changes: Changes
) -> None:
    """Make the folder, say in it that a transfer is under way, clear what is in the way."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    copy_record.write_index(folder, index)
    copy_record.start(folder, parameters, wanted, changes.send)
    for path in changes.blocked:
        inside = [one for one in changes.delete if one.startswith(f"{path}/")]
        remove(folder, (*inside, path))


# The system's own: these folders, and all that is below them.
_SYSTEM = frozenset(
    [
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "sys",
        "usr",
    ]
)
# Below these a folder may be, as they are meant for what people bring.
_PEOPLES = (PurePosixPath("/usr/local"), PurePosixPath("/usr/src"))
_FEWEST = 2


def refusal(folder: str, keep: Sequence[str] = (), home: Optional[str] = None) -> Optional[str]:
    """Why a folder must not be a destination; None when it may. Pure.

    keep: folders that it must neither be nor contain; home: of the user who would write there.
    """
    path = PurePosixPath(folder)
    if not path.is_absolute():
        return "it is no absolute path"
    if ".." in path.parts:
        return "there is .. in it"
    names = path.parts[1:]
    if len(names) < _FEWEST:
        return "it is too near to the root: at least two names are expected, as in /data/omniinfer"
    if names[0] in _SYSTEM and not any(_deep(path, free) for free in _PEOPLES):
        return "it belongs to the system"
    if (names[0] == "home" and len(names) == _FEWEST) or (home and path == PurePosixPath(home)):
        return "it is a home directory"
    for other in keep:
        if path == PurePosixPath(other) or path in PurePosixPath(other).parents:
            return f"{other} is in it, which must stay" if str(path) != other else "it must stay"
    return None


def real(folder: str) -> str:
    """Where a folder really is, also one that does not exist yet."""
    return os.path.realpath(folder)


def refusal_here(folder: str, keep: Sequence[str]) -> Optional[str]:
    """The same on this machine, for the path as it is written and for where it leads."""
    home = str(Path("~").expanduser())
    places = [real(one) for one in keep]
    return refusal(folder, keep, home) or refusal(real(folder), places, os.path.realpath(home))


def nested(one: str, other: str) -> bool:
    """Whether one of two folders is inside the other (equal is not inside)."""
    first, second = PurePosixPath(real(one)), PurePosixPath(real(other))
    return first in second.parents or second in first.parents


def nearest(folder: str) -> str:
    """The folder itself, or the nearest above it that exists."""
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    return str(path)


def free_bytes(folder: str) -> int:
    """Space that this user may still take where a folder is or would be."""
    found = os.statvfs(nearest(folder))
    return found.f_bavail * found.f_frsize


def _deep(path: PurePosixPath, free: PurePosixPath) -> bool:
    return free in path.parents and len(path.parts) >= len(free.parts) + _FEWEST


_BYTECODE = "__pycache__"


@contextmanager
def named(folder: str) -> Iterator[None]:
    """An error of the disk becomes one that names the file and what to look at."""
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else folder
        raise ActionError(
            f"cannot be read or written: {error.strerror}.",
            where=tree.shown(tree.text(os.fsencode(name))),
            todo=f"look at its owner and at the disk: ls -ld {folder}; df -h {folder}",
        ) from error


def look(
    folder: str, excludes: Excludes, known: Index, sent: Optional[Manifest] = None
) -> tree.Tree:
    """What is there; nothing where there is no such folder."""
    if not Path(folder).exists():
        return tree.Tree({}, {})
    return tree.walk(folder, excludes, known, sent)


def differences(folder: str, wanted: Manifest, found: Manifest) -> Changes:
    """What differs. A folder of which only excluded things would remain stays, and is no change."""
    differs = tree.compare(wanted, found)
    gone: set[str] = set()
    for path in differs.delete:
        if found[path].kind != FOLDER or not _others(folder, path, gone):
            gone.add(path)
    delete = tuple(path for path in differs.delete if path in gone)
    return Changes(differs.create, differs.update, differs.mode, delete, differs.blocked)


def remove(folder: str, paths: Iterable[str]) -> None:
    """Remove files and folders, given deepest first, with the bytecode of what goes."""
    for path in paths:
        full = _join(folder, path)
        with suppress(FileNotFoundError):  # gone meanwhile
            if os.path.isdir(full) and not os.path.islink(full):  # noqa: PTH112, PTH114
                shutil.rmtree(_join(folder, f"{path}/{_BYTECODE}"), ignore_errors=True)
                os.rmdir(full)  # noqa: PTH106
            else:
                os.unlink(full)  # noqa: PTH108
                _remove_bytecode(folder, path)


def remove_unfinished(folder: str, files: Manifest) -> None:
    """Remove what rsync left of transfers that were cut off and are not needed any more."""
    inside = (path for path, one in files.items() if one.kind == FOLDER)
    for path in ("", *inside):
        place = _join(folder, f"{path}/{tree.UNFINISHED}" if path else tree.UNFINISHED)
        shutil.rmtree(place, ignore_errors=True)


def _others(folder: str, path: str, gone: set[str]) -> list[str]:
    try:
        names = [tree.text(name) for name in os.listdir(_join(folder, path))]  # noqa: PTH208
    except OSError:
        return []
    ours = (_BYTECODE, tree.UNFINISHED)
    return [name for name in names if name not in ours and f"{path}/{name}" not in gone]


def _remove_bytecode(folder: str, path: str) -> None:
    head, _, name = path.rpartition("/")
    if not name.endswith(".py"):
        return
    cache = _join(folder, f"{head}/{_BYTECODE}" if head else _BYTECODE)
    start = tree.raw(name[:-2])
    with suppress(FileNotFoundError, NotADirectoryError):
        for made in os.listdir(cache):  # noqa: PTH208
            if made.startswith(start) and made.endswith(b".pyc"):
                os.unlink(os.path.join(cache, made))  # noqa: PTH108, PTH118


def _join(folder: str, path: str) -> bytes:
    return os.path.join(tree.raw(folder), tree.raw(path))  # noqa: PTH118 (paths are bytes)
