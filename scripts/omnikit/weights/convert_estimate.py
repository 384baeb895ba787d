"""How long a conversion will take, from a short measurement on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from omnikit.weights.convert_actions import Rest
from omnikit.weights.convert_plan import COPY

_SAMPLE = 64 << 20
_PART = 4 << 20
_LEAST = 1 << 20  # of free space: below it nothing is measured
_ROWS, _COLUMNS, _TIMES = 1024, 7168, 3


def measure(rest: Rest, arithmetic: Any, threads: int) -> Optional[dict[str, float]]:
    """Bytes per second: read (source), compute (source, all threads), hash (all threads), write
    (until it is on the disk); None where there is too little space to measure.

    Reads 64 MiB of the source; writes a file of 64 MiB, or of half the free space, beside the
    target and removes it. Raises OSError.
    """
    sample = min(_SAMPLE, rest.free // 2 // _LEAST * _LEAST)
    if sample < _LEAST:
        return None
    try:
        written = _write(rest.near, sample)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a quota, which the free space hides
            return None
        raise
    workers = min(threads, len(os.sched_getaffinity(0)))
    return {
        "read": _read(rest, workers),
        "compute": _compute(arithmetic, workers),
        "hash": _hash(workers),
        "write": written,
    }


def seconds(rest: Rest, rates: dict[str, float], threads: int, start: float) -> float:
    """Of the whole run, from the rates of measure.

    Added up: start (until the arithmetic is loaded); then the larger of two sums, for while some
    threads wait for the disk others compute: what the processors do (arithmetic; the hash of the
    result, and of kept files) and what the disks do (reading the rest of the source, writing the
    result: one after the other on one disk, beside each other on two); then what nothing overlaps:
    the hash of the last file and of the copied ones, on one thread.
    Supposed: a new file is still in memory when it is read again for its hash.
    """
    made = sum(one.size for one in rest.left)
    kept = sum(one.size for one in rest.kept)
    pieces = [piece for one in rest.left for piece in one.pieces]
    arithmetic = sum(piece.source.size for piece in pieces if piece.what != COPY)
    last = max((one.size for one in (*rest.left, *rest.kept)), default=0)
    processors = arithmetic / rates["compute"] + (made + kept - last) / rates["hash"]
    reading = (rest.source_bytes + kept) / rates["read"]
    folder = rest.conversion.checkpoint.folder
    same = folder.stat().st_dev == rest.near.stat().st_dev
    writing = made / rates["write"]
    disks = reading + writing if same else max(reading, writing)
    others = sum(path.stat().st_size for path in rest.others)
    workers = min(threads, len(os.sched_getaffinity(0)))
    alone = (last + others) * workers / rates["hash"]
    return start + max(processors, disks) + alone


def _rate(workers: int, tasks: int, act: Callable[[int], int]) -> float:
    """Bytes per second of act, which returns its bytes, with so many threads."""
    with ThreadPoolExecutor(workers) as pool:
        began = time.perf_counter()
        count = sum(pool.map(act, range(tasks)))
        return max(1, count) / max(1e-9, time.perf_counter() - began)


def _read(rest: Rest, workers: int) -> float:
    """Of the source as it lies, in memory or on the disk: parts by chance, so that a second
    measurement does not find in memory what the first has read.
    """
    found = rest.conversion.checkpoint
    names = {shard.source for shard in rest.left} or set(found.sizes)
    paths = [found.folder / name for name in sorted(names)]
    weights = [found.sizes[path.name] for path in paths]

    def one(_: int) -> int:
        path = random.choices(paths, weights)[0]
        with path.open("rb", buffering=0) as file:
            file.seek(random.randrange(max(1, found.sizes[path.name] - _PART)))
            return len(file.read(_PART))

    return _rate(workers, max(1, min(_SAMPLE, sum(weights)) // _PART), one)


def _compute(arithmetic: Any, workers: int) -> float:
    """Of e4m3 in memory; what it needs is loaded before."""
    made = np.random.default_rng(0)
    source = made.integers(0, 126, (_ROWS, _COLUMNS), dtype=np.uint8)
    factors = np.ones((-(-_ROWS // 128), -(-_COLUMNS // 128)), np.float32)

    def one(_: int) -> int:
        # Used again, as the conversion does: fresh memory costs as much as the arithmetic.
        target, scales = np.ones((_ROWS, _COLUMNS), np.int8), np.ones(_ROWS, np.float32)
        for _ in range(_TIMES):
            arithmetic.quantise_fp8(source, factors, (128, 128), 0, target, scales)
        return int(source.size) * _TIMES

    return _rate(workers, workers, one)


def _hash(workers: int) -> float:
    """Of SHA-256."""
    data = bytes(_PART)

    def one(_: int) -> int:
        hashlib.sha256(data).digest()
        return len(data)

    return _rate(workers, 4 * workers, one)


def _write(folder: Path, sample: int) -> float:
    """Of a file until it is on the disk."""
    data = random.randbytes(_LEAST)
    path = folder / f".omnikit-write-{os.getpid()}"
    try:
        with path.open("xb", buffering=0) as file:
            began = time.perf_counter()
            for _ in range(sample // _LEAST):
                file.write(data)
            os.fsync(file.fileno())
        return sample / max(1e-9, time.perf_counter() - began)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        with suppress(OSError):  # it may be why nothing was written, and is the folder's matter
            path.unlink()
