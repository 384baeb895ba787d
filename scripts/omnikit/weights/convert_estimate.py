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

from omnikit.weights import direct_file
from omnikit.weights.convert_actions import Rest
from omnikit.weights.convert_layout import COPY

_SAMPLE = 64 << 20
_PART = 4 << 20
_LEAST = 1 << 20  # of free space: below it nothing is measured
_ROWS, _COLUMNS = 1024, 7168
_FOR_S = 0.4  # at least, of what needs no disk: less is chance on a machine with other work


def measure(rest: Rest, arithmetic: Any, threads: int) -> Optional[dict[str, float]]:
    """Bytes per second: read (source), compute (source, all threads), hash (all threads), write
    (until it is on the disk); read_busy and write_busy: per second of one processor that this took.
    None where there is too little space to measure.

    Reads 64 MiB of the source; writes a file of 64 MiB, or of half the free space, beside the
    target and removes it. Raises OSError.
    """
    sample = min(_SAMPLE, rest.free // 2 // _LEAST * _LEAST)
    if sample < _LEAST:
        return None
    try:
        written, write_busy = _write(rest.near, sample)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a quota, which the free space hides
            return None
        raise
    workers = min(threads, len(os.sched_getaffinity(0)))
    read, read_busy = _read(rest, workers)
    return {
        "read": read,
        "compute": _compute(arithmetic, workers),
        "hash": _hash(workers),
        "write": written,
        "read_busy": read_busy,
        "write_busy": write_busy,
    }


def seconds(rest: Rest, rates: dict[str, float], threads: int, start: float) -> float:
    """Of the whole run, from the rates of measure.

    Added up: start (until the arithmetic is loaded); then the larger of two sums, for while some
    threads wait for the disk others compute: what the processors do (arithmetic; hashes of the
    result and of kept files; moving what is read and written through memory) and what the disks do
    (reading the rest of the source and the kept files, writing the result: one after the other on
    one disk, beside each other on two); then what nothing overlaps: the hash of the files that are
    copied as they are, on one thread.
    """
    made = sum(one.size for one in rest.left)
    kept = sum(one.size for one in rest.kept)
    pieces = [piece for one in rest.left for piece in one.pieces]
    arithmetic = sum(piece.source.size for piece in pieces if piece.what != COPY)
    workers = min(threads, len(os.sched_getaffinity(0)))
    read = rest.source_bytes + kept
    moving = read / rates["read_busy"] + made / rates["write_busy"]
    hashing = (made + kept) / rates["hash"]
    processors = arithmetic / rates["compute"] + hashing + moving / workers
    reading, writing = read / rates["read"], made / rates["write"]
    same = rest.conversion.checkpoint.folder.stat().st_dev == rest.near.stat().st_dev
    disks = reading + writing if same else max(reading, writing)
    others = sum(path.stat().st_size for path in rest.others)
    alone = others * workers / rates["hash"]
    return start + max(processors, disks) + alone


def _rate(workers: int, tasks: int, act: Callable[[int], int]) -> tuple[float, float]:
    """Of act, which returns its bytes, with so many threads: bytes per second, and per second of
    one processor.
    """
    with ThreadPoolExecutor(workers) as pool:
        began, busy = time.perf_counter(), time.process_time()
        count = max(1, sum(pool.map(act, range(tasks))))
        taken, busy = time.perf_counter() - began, time.process_time() - busy
    return count / max(1e-9, taken), count / max(1e-9, busy)


def _read(rest: Rest, workers: int) -> tuple[float, float]:
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
        count, until = 0, time.monotonic() + _FOR_S
        while time.monotonic() < until:
            arithmetic.quantise_fp8(source, factors, (128, 128), 0, target, scales)
            count += int(source.size)
        return count

    return _rate(workers, workers, one)[0]


def _hash(workers: int) -> float:
    """Of SHA-256."""
    data = bytes(_PART)

    def one(_: int) -> int:
        count, until = 0, time.monotonic() + _FOR_S
        while time.monotonic() < until:
            hashlib.sha256(data).digest()
            count += len(data)
        return count

    return _rate(workers, workers, one)[0]


def _write(folder: Path, sample: int) -> tuple[float, float]:
    """Of a file until it is on the disk."""
    path = folder / f".omnikit-write-{os.getpid()}"
    piece = direct_file.buffer(min(_PART, sample))
    piece[:] = np.frombuffer(random.randbytes(len(piece)), np.uint8)

    def one(_: int) -> int:
        file = direct_file.DirectFile(path, sample)
        try:
            for start in range(0, sample, len(piece)):
                file.write(start, piece.data[: sample - start])
            file.finish()
        finally:
            file.close()
        return sample

    try:
        return _rate(1, 1, one)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        with suppress(OSError):  # it may be why nothing was written, and is the folder's matter
            path.unlink()
