"""A conversion's unit of work: some rows of one tensor, read, computed and written."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

import numpy as np

from omnikit.errors import ActionError
from omnikit.weights.checkpoint import SIZES, Tensor
from omnikit.weights.convert_plan import COPY, QUANTISE, Piece

_buffers = threading.local()
# Bytes that are handed to the kernel at once. It caches larger pieces in larger pages; a virtual
# machine gives those back to its host when they are freed, and has to get them anew.
_WRITE = 256 << 10


@dataclass(frozen=True)
class Rows:
    """Rows first to last (excluded) of a piece; of a copied tensor, bytes."""

    piece: Piece
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes that are read."""
        return (self.last - self.first) * row_size(self.piece)


def row_size(piece: Piece) -> int:
    """Bytes of a row of the source; 1 where bytes are copied."""
    if piece.what == COPY:
        return 1
    return piece.source.shape[1] * SIZES[piece.source.dtype]


def cut(piece: Piece, size: int) -> Iterator[Rows]:
    """A piece in parts of about size bytes of the source: at least one row each."""
    rows = piece.source.size if piece.what == COPY else piece.source.shape[0]
    step = max(1, size // max(1, row_size(piece)))
    for first in range(0, rows, step):
        yield Rows(piece, first, min(rows, first + step))


def block_scales(folder: Path, tensor: Tensor) -> Any:
    """A matrix's block scales: float32 [block rows, block columns].

    0 is one of a block of zeros. Raises ActionError: a scale that is negative or not finite.
    """
    scales = np.empty(tensor.shape, np.float32)
    with (folder / tensor.file).open("rb", buffering=0) as file:
        read_at(file.fileno(), scales.data.cast("B"), tensor.start, tensor)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise _corrupt(tensor, "a block scale is not a positive number")
    return scales


def _zeros_are_zeros(rows: Rows, block: tuple[int, int], scales: Any, matrix: Any) -> None:
    """Raises ActionError: a block with scale 0 holds other numbers than 0, so the scale is lost."""
    for i, j in np.argwhere(scales == 0):
        low, high = (max(0, at * block[0] - rows.first) for at in (i, i + 1))
        part = matrix[low:high, j * block[1] : (j + 1) * block[1]]
        if (part & 127).any():
            raise _corrupt(rows.piece.source, f"the scale of block {i}, {j} is 0, its numbers not")


def convert(
    rows: Rows,
    block: Optional[tuple[int, int]],
    scales: Any,
    source: int,
    to: int,
    arithmetic: Any = None,
) -> None:
    """Read rows from the file descriptor source, compute, write to the descriptor to.

    scales: block_scales of the matrix, None where it has none. arithmetic: what computes, None: the
    module kernels. Raises ActionError: numbers that are not finite, a source that ends early.
    Raises OSError.
    """
    if arithmetic is None:
        # Late: numba takes time to import.
        from omnikit.weights import kernels as arithmetic
    piece, tensor = rows.piece, rows.piece.source
    step = row_size(piece)
    data = _buffer("source", rows.size)
    read_at(source, data.data, tensor.start + rows.first * step, tensor)
    if piece.what == COPY:
        _write_at(to, data.data, piece.start + rows.first)
        return
    count, columns = rows.last - rows.first, tensor.shape[1]
    if block is not None:
        _zeros_are_zeros(rows, block, scales, data.reshape(count, columns))
    if piece.what == QUANTISE:
        made = _buffer("target", count * columns).view(np.int8).reshape(count, columns)
        row_scales = np.empty(count, np.float32)
        if block is None:
            words = data.view(np.uint16).reshape(count, columns)
            bad = arithmetic.quantise_bf16(words, made, row_scales)
        else:
            matrix = data.reshape(count, columns)
            bad = arithmetic.quantise_fp8(matrix, scales, block, rows.first, made, row_scales)
        if bad < 0:
            at = piece.scale_start + rows.first * 4
            _write_at(to, row_scales.data.cast("B"), at)
    else:
        made = _buffer("target", count * columns * 2).view(np.uint16).reshape(count, columns)
        bad = arithmetic.widen_fp8(data.reshape(count, columns), scales, block, rows.first, made)
    if bad >= 0:
        raise _corrupt(tensor, f"row {rows.first + bad} holds what is no finite number")
    start = piece.start + rows.first * columns * made.itemsize
    _write_at(to, made.data.cast("B"), start)


def _buffer(name: str, size: int) -> Any:
    """uint8 [size], of this thread, used again: fresh memory costs as much as the arithmetic."""
    kept = getattr(_buffers, name, None)
    if kept is None or kept.size < size:
        kept = np.empty(size, np.uint8)
        setattr(_buffers, name, kept)
    return kept[:size]


def read_at(descriptor: int, into: memoryview, offset: int, tensor: Tensor) -> None:
    """Fill into with the file's bytes from offset. Raises OSError with the tensor's file."""
    done = 0
    while done < len(into):
        try:
            count = os.preadv(descriptor, [into[done:]], offset + done)
        except OSError as error:
            # A descriptor has no name: without this the error would be looked for in the target.
            raise OSError(error.errno, error.strerror, tensor.file) from error
        if count == 0:
            raise _corrupt(tensor, "the file ends before this tensor does")
        done += count


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + _WRITE], offset + done)
    # What is dirty begins to go to the disk now, and not all at once when the file is complete.
    os.posix_fadvise(descriptor, offset, len(data), os.POSIX_FADV_DONTNEED)


def drop_cache(path: Path) -> None:
    """Give up the memory that caches a file: the next one is written into it. Twice as fast where
    fresh memory is dear (virtual machines), and other programs keep what they have cached.
    """
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _corrupt(tensor: Tensor, what: str) -> ActionError:
    return ActionError(
        f"{tensor.name}: {what}: the source is damaged.",
        where=tensor.file,
        todo="check this file against its published checksum, download it again, run again",
    )
