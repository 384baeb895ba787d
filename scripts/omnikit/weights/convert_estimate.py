"""How long a conversion will take, from a short measurement on this machine."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from omnikit.weights import kernels
from omnikit.weights.convert_plan import Conversion

_SAMPLE = 64 << 20
_ROWS, _COLUMNS = 1024, 7168


def measure(conversion: Conversion, near_target: Path, threads: int) -> dict[str, float]:
    """Bytes per second: read of the source, compute of FP8 input on all threads, write and hash of
    the result. seconds: of the whole, where the slowest of the four decides, for they overlap.

    Writes a file of 64 MiB into near_target and removes it. Raises OSError.
    """
    found = {
        "read": _read(conversion),
        "compute": _compute(threads),
        "write": _write(near_target),
    }
    source = sum(conversion.checkpoint.sizes.values())
    found["seconds"] = max(
        source / found["read"], source / found["compute"], conversion.size / found["write"]
    )
    return found


def _read(conversion: Conversion) -> float:
    """Of the largest source file's beginning, not from memory where the system lets us say so."""
    sizes = conversion.checkpoint.sizes
    path = conversion.checkpoint.folder / max(sizes, key=lambda name: sizes[name])
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, _SAMPLE, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        count = len(file.read(_SAMPLE))
    return count / max(1e-9, time.perf_counter() - began)


def _compute(threads: int) -> float:
    """Of e4m3, converted and hashed, in memory."""
    import hashlib

    random = np.random.default_rng(0)
    source = random.integers(0, 126, (_ROWS, _COLUMNS), dtype=np.uint8)
    factors = np.ones((-(-_ROWS // 128), -(-_COLUMNS // 128)), np.float32)

    def one(_: int) -> None:
        target = np.empty((_ROWS, _COLUMNS), np.int8)
        scales = np.empty(_ROWS, np.float32)
        kernels.quantise_fp8(source, factors, (128, 128), 0, target, scales)
        hashlib.sha256(target.data.cast("B")).digest()

    one(0)  # compiles where nobody has
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(one, range(4 * threads)))
        return 4 * threads * source.size / (time.perf_counter() - began)


def _write(folder: Path) -> float:
    """Of a file until it is on the disk."""
    data: Any = np.random.default_rng(0).bytes(1 << 20)
    path = folder / f".omnikit-write-{os.getpid()}"
    try:
        with path.open("wb", buffering=0) as file:
            began = time.perf_counter()
            for _ in range(_SAMPLE >> 20):
                file.write(data)
            os.fsync(file.fileno())
        return _SAMPLE / max(1e-9, time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
