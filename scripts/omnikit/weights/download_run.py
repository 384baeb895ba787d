"""A model's files brought into a folder: what is there stays, what is missing is fetched."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import host_records
from omnikit.errors import InputError
from omnikit.weights import checkpoint
from omnikit.weights.download_fetch import Fetcher, Stopped, sha256
from omnikit.weights.download_sources import Origin, Remote
from omnikit.weights.meter import Meter, size_text

# In the target: parts, and what is known of the files that are whole.
WORK = ".download"
_RECORD = "files.json"


@dataclass(frozen=True)
class Need:
    """todo: files to fetch. there: files that are right. bytes: still to come, as far as known."""

    todo: list[Remote]
    there: list[Remote]
    bytes: int


def chosen(files: Sequence[Remote], include: Sequence[str], exclude: Sequence[str]) -> list[Remote]:
    """By patterns of the shell. Raises InputError: nothing is left."""
    found = [
        one
        for one in files
        if (not include or any(fnmatch(one.name, pattern) for pattern in include))
        and not any(fnmatch(one.name, pattern) for pattern in exclude)
    ]
    if not found:
        raise InputError(
            f"none of {len(files)} published files is chosen.",
            where="weights.download.include, exclude",
            todo="--dry-run without patterns shows their names",
        )
    return found


def look(target: Path, files: Sequence[Remote], verify: bool = False) -> Need:
    """What is missing. A file that came otherwise is taken when its published hash is right.

    Without a hash it is fetched: shards of two models of one architecture have equal sizes.

    verify: read all files again, also those that were checked when they came.
    """
    record = _read(target)
    todo, there, left = [], [], 0
    for one in files:
        path = target / one.name
        if path.is_file() and _right(path, one, record.get(one.name), verify):
            there.append(one)
            continue
        todo.append(one)
        part = _part(target, one)
        left += max(0, (one.size or 0) - (part.stat().st_size if part.exists() else 0))
    return Need(todo, there, left)


def _right(path: Path, one: Remote, known: Optional[dict[str, Any]], verify: bool) -> bool:
    told = path.stat()
    if one.size is not None and told.st_size != one.size:
        return False
    same = known is not None and (known["size"], known["mtime_ns"]) == (
        told.st_size,
        told.st_mtime_ns,
    )
    if known is not None and not one.sha256 and known["state"] != one.state:
        return False
    if known is not None and same and not verify:
        return not one.sha256 or known["sha256"] == one.sha256
    expected = one.sha256 or (known["sha256"] if known else None)
    return expected is not None and sha256(path) == expected


def check_space(target: Path, need: Need) -> None:
    """Raises InputError: needed and free bytes."""
    above = next(folder for folder in (target, *target.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(above).free
    if need.bytes > free:
        raise InputError(
            f"needs {size_text(need.bytes)} more, {size_text(free)} are free.",
            where=str(target),
            todo="free some space, or choose another target",
        )


def run(origin: Origin, target: Path, need: Need, workers: int, fetcher: Fetcher) -> None:
    """Fetch what is missing, side by side. Raises InputError, ActionError: of the first file that
    cannot be had; the others are stopped, what came is kept.
    """
    (target / WORK).mkdir(parents=True, exist_ok=True)
    with host_records.locked(target / WORK / "lock", f"download into {target}"):
        record = _read(target)
        turn = threading.Lock()

        def one(remote: Remote) -> None:
            if fetcher.stop.is_set():
                return
            part = _part(target, remote)
            try:
                part.parent.mkdir(parents=True, exist_ok=True)
                digest = fetcher.fetch(remote, part)
                if remote.name.endswith(".safetensors"):
                    checkpoint.read_header(part)  # a page of an error is no shard
                place = target / remote.name
                place.parent.mkdir(parents=True, exist_ok=True)
                part.replace(place)
                part.with_name(f"{part.name}.tag").unlink(missing_ok=True)
                told = place.stat()
                with turn:
                    record[remote.name] = {
                        **{"size": told.st_size, "mtime_ns": told.st_mtime_ns},
                        **{"sha256": digest, "state": remote.state},
                    }
                    _write(target, record)
            except BaseException:
                fetcher.stop.set()
                raise

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(one, remote) for remote in need.todo]
            try:
                wait_for(futures)
            except BaseException:
                fetcher.stop.set()
                raise
        errors = [error for future in futures if (error := future.exception()) is not None]
        errors.sort(key=lambda error: isinstance(error, Stopped))  # the cause before its effects
        if errors:
            raise errors[0]


def check_whole(target: Path) -> int:
    """How many safetensors files the index names, all there and as it says; 0 without an index.

    Raises InputError: every one that is missing or says something else.
    """
    if not (target / checkpoint.INDEX).exists():
        return 0
    return len(checkpoint.read(target, config_needed=False).shards)


def meter(need: Need, say: Any) -> Meter:
    """Of the bytes that are to come."""
    return Meter(need.bytes, say, "downloaded")


def _part(target: Path, one: Remote) -> Path:
    return target / WORK / f"{one.name}.part"


def _read(target: Path) -> dict[str, Any]:
    path = target / WORK / _RECORD
    return checkpoint.read_json(path) if path.exists() else {}


def _write(target: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1) + "\n"
    host_records.write_atomically(target / WORK / _RECORD, text)
