"""Jobs "warm", "warm-begin" and "warm-told": read a model's files into the page cache of this host,
before servers read them; at once, or beside all else that a deployment does.

What is in memory is asked of the kernel (mincore(2)), not assumed. It answers truly only to those
who own a file or may write it, and "all" to others: then nothing is said of it, all is read.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

from hostkit.base import records, run, writing
from hostkit.base.errors import InputError
from hostkit.base.log import say, size_text
from hostkit.files import regular
from hostkit.nodes.taken_ports import memory_available_mib

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth", "*.gguf")
_READERS = 8  # one at a time does not keep a disk of today, or a file server, at work
_PIECE = 8 << 20
_WINDOW = 1 << 30  # bytes that are looked at through one mapping
_SPARE = 0.05  # of the memory that is free: a cache that is full loses what was read first
_TELL_S = 5
_ONE_BIT = bytes(value & 1 for value in range(256))  # what other bits say is reserved


def warm(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: model (folder), dry_run, available_mib (None: as the kernel says).

    Returns bytes: of all files; before, after: of these in memory (None: the kernel does not tell
    us); left: bytes of files for which there is no memory; seconds; changed. Raises InputError.
    """
    folder, begun = Path(parameters["model"]), time.monotonic()
    paths = sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})
    try:
        sizes = {path: path.stat().st_size for path in paths}
        here = {path: resident(path) for path in paths}
    except OSError as error:
        raise InputError(f"cannot read the model: {error}.", where=str(folder)) from error
    if not paths:
        raise InputError(
            "no weights are there.",
            where=str(folder),
            todo="invoke download-weights; or model.path",
        )
    available = parameters.get("available_mib") or memory_available_mib()
    room = (1 << 62) if available is None else (available << 20) * (1 - _SPARE)
    to_read, left = [], 0
    for path in paths:
        lacks = sizes[path] - (here[path] or 0)
        if lacks > room:
            left += lacks
        elif lacks:
            room -= lacks
            to_read.append(path)
    before = None if None in here.values() else sum(size or 0 for size in here.values())
    after = before
    if to_read and not parameters.get("dry_run"):
        _read(to_read, sum(sizes[path] for path in to_read))
        again = [resident(path) for path in paths]
        after = None if None in again else sum(size or 0 for size in again)
    return {
        "changed": bool(to_read),
        "bytes": sum(sizes.values()),
        "before": before,
        "after": after,
        "left": left,
        "seconds": round(time.monotonic() - begun, 1),
    }


def begin(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job: have a process of its own read on, unless that is of no use; returns at once.

    parameters: model, work_dir. Returns changed (it reads), bytes, why (it does not), now (this
    host's clock). Nothing is read beside servers that run, nor where only a part has room: what is
    read last would push out what was read first.
    """
    work = Path(parameters["work_dir"])
    told = {"changed": False, "bytes": 0, "why": "", "now": time.time()}
    if any(
        records.alive((records.read_record(work / "state", name) or {}).get("supervisor"))
        for name in records.recorded_nodes(work / "state")
    ):
        return {**told, "why": "servers run"}
    try:
        found = warm({**parameters, "dry_run": True})
    except InputError as error:
        return {**told, "why": error.what}
    if found["left"] or not found["changed"]:
        return {**told, "why": "there is no room" if found["left"] else "they are in memory"}
    record = _record(work)
    record.parent.mkdir(parents=True, exist_ok=True)
    writing.write_atomically(record, json.dumps({"began": told["now"]}))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from hostkit.checks import warm;"
        " warm.go_on(*sys.argv[2:])"
    )
    home = Path(__file__).parents[2]  # a folder, or the archive that a host was sent
    words = [sys.executable, "-I", "-S", "-c", code, home, parameters["model"], record]
    run.start(words, output=subprocess.DEVNULL)
    return {**told, "changed": True, "bytes": found["bytes"] - (found["before"] or 0)}


def go_on(model: str, record: str) -> None:
    """What that process does."""
    began = time.time()
    done = warm({"model": model})
    told = {"began": began, "ended": time.time(), "bytes": done["bytes"], "after": done["after"]}
    writing.write_atomically(Path(record), json.dumps(told))


def told(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job: what became of it; without "ended" it still reads. parameters: work_dir."""
    return {"changed": False, **writing.read_back(_record(Path(parameters["work_dir"])))}


def _record(work: Path) -> Path:
    return work / "jobs" / "warm.json"


def _read(paths: list[Path], size: int) -> None:
    done, said = 0, time.monotonic()

    def read(path: Path) -> None:
        nonlocal done, said
        buffer = bytearray(_PIECE)
        with regular.opened(path) as file:
            while count := os.readv(file.fileno(), [buffer]):
                done += count
                if time.monotonic() - said >= _TELL_S:
                    said = time.monotonic()
                    say(f"{size_text(done)} of {size_text(size)} are read")

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(read, paths):
            pass


def resident(path: Path) -> Optional[int]:
    """Bytes of a file that are in the page cache now; None where the kernel does not tell us.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    with regular.opened(path) as file:
        about = os.fstat(file.fileno())
        if os.geteuid() not in (0, about.st_uid) and not os.access(path, os.W_OK):
            return None
        pages = 0
        for start in range(0, about.st_size, _WINDOW):
            size = min(_WINDOW, about.st_size - start)
            at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), start)
            if at in (None, ctypes.c_void_p(-1).value):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
            flags = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
            try:
                if libc.mincore(at, size, flags) != 0:
                    return None  # a file system that does not know
            finally:
                libc.munmap(at, size)
            pages += flags.raw.translate(_ONE_BIT).count(1)
    return min(pages * mmap.PAGESIZE, about.st_size)
