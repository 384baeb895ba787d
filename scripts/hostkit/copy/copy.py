"""The jobs of a source tree's copy on this host: what differs before its transfer, and afterwards
whether it is what it should be. The record beside the files is written last.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Optional

from hostkit.base import lock
from hostkit.base.errors import ActionError, InputError
from hostkit.copy import files, place, tree
from hostkit.copy import record as copy_record
from hostkit.copy.tree import Changes, Excludes, Index, Manifest

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
    with files.named(folder):
        return _begin(folder, record, parameters)


def _begin(
    folder: str, record: Optional[copy_record.Record], parameters: dict[str, Any]
) -> dict[str, Any]:
    wanted = tree.unpack(parameters["files"])
    known: Index = {} if parameters["full"] else copy_record.index(folder)
    found = files.look(folder, Excludes(parameters["exclude"]), known)
    changes = files.changes(folder, wanted, found.files)
    need = sum(wanted[path].size for path in (*changes.create, *changes.update))
    result: dict[str, Any] = {
        "changed": False,
        **{kind: list(getattr(changes, kind)) for kind in _KINDS},
        "free_bytes": place.free_bytes(folder),
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
    with files.named(str(parameters["dir"])):
        return _finish(str(parameters["dir"]), parameters)


def _finish(folder: str, parameters: dict[str, Any]) -> dict[str, Any]:
    record = copy_record.read(folder)
    if record is None or record["digest"] != parameters["digest"]:
        raise ActionError(
            "somebody else changed this copy of the source meanwhile.",
            where=folder,
            todo="find out who (audit.jsonl in the work directory), then sync again",
        )
    wanted, excludes = copy_record.files(record), Excludes(parameters["exclude"])
    if parameters["full"]:
        found = files.look(folder, excludes, {})
    else:
        sent = {path: wanted[path] for path in record.get("sent", ())}
        found = files.look(folder, excludes, copy_record.index(folder), sent)
    changes = files.changes(folder, wanted, found.files)
    if changes.send:
        some = ", ".join(tree.shown(path) for path in changes.send[:_SHOWN])
        raise ActionError(
            f"{len(changes.send)} files are not what they are in the source, the first: {some}.",
            where=folder,
            todo="was the source, or were these files, edited during the transfer? Sync again",
        )
    files.remove(folder, changes.delete)
    files.remove_unfinished(folder, wanted)
    copy_record.complete(folder, None, record, wanted, found.index)
    if parameters["owner"]:
        said = f"synced {folder} from {record['source']}"
        lock.audit(Path(parameters["work_dir"]), parameters["owner"], said, "ok")
    return {"changed": True, "digest": record["digest"], "read_bytes": found.read}


def _check_place(folder: str, keep: list[str]) -> None:
    why = place.refusal_here(folder, keep)
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
            todo=f"make room there: df -h {place.nearest(folder)}",
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
        files.remove(folder, (*inside, path))
