"""A conversion's unit of work: some rows of one tensor, read and computed."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

import numpy as np

from omnikit.errors import ActionError
from omnikit.weights.checkpoint import SIZES, Tensor
from omnikit.weights.convert_layout import COPY, QUANTISE, Piece
from omnikit.weights.direct_file import ALIGN, buffer

_buffers = threading.local()


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


@dataclass(frozen=True)
class Made:
    """What became of some rows. start: where data belong in the new file. scales: float32 [rows] of
    a quantised matrix. Of the calling thread: good until it converts the next rows.
    """

    start: int
    data: memoryview
    scales: Any = None


def convert(
    rows: Rows,
    block: Optional[tuple[int, int]],
    scales: Any,
    source: int,
    arithmetic: Any = None,
) -> Made:
    """Read rows from the file descriptor source and compute.

    scales: block_scales of the matrix, None where it has none. arithmetic: what computes, None: the
    module kernels. Raises ActionError: numbers that are not finite, a source that ends early.
    Raises OSError.
    """
    if arithmetic is None:
        # Late: numba takes time to import.
        from omnikit.weights import kernels as arithmetic
    piece, tensor = rows.piece, rows.piece.source
    step = row_size(piece)
    copied = piece.what == COPY
    data = _buffer("source", rows.size, piece.start + rows.first if copied else 0)
    read_at(source, data.data, tensor.start + rows.first * step, tensor)
    if copied:
        return Made(piece.start + rows.first, data.data)
    count, columns = rows.last - rows.first, tensor.shape[1]
    element = 1 if piece.what == QUANTISE else 2
    start = piece.start + rows.first * columns * element
    target = _buffer("target", count * columns * element, start)
    if block is not None:
        _zeros_are_zeros(rows, block, scales, data.reshape(count, columns))
    row_scales = None
    if piece.what == QUANTISE:
        made = target.view(np.int8).reshape(count, columns)
        row_scales = np.empty(count, np.float32)
        if block is None:
            words = data.view(np.uint16).reshape(count, columns)
            bad = arithmetic.quantise_bf16(words, made, row_scales)
        else:
            matrix = data.reshape(count, columns)
            bad = arithmetic.quantise_fp8(matrix, scales, block, rows.first, made, row_scales)
    else:
        made = target.view(np.uint16).reshape(count, columns)
        bad = arithmetic.widen_fp8(data.reshape(count, columns), scales, block, rows.first, made)
    if bad >= 0:
        raise _corrupt(tensor, f"row {rows.first + bad} holds what is no finite number")
    return Made(start, target.data, row_scales)


def _buffer(name: str, size: int, place: int) -> Any:
    """uint8 [size], of this thread, used again: fresh memory costs as much as the arithmetic.

    place: where its bytes belong in the new file, if they do: in memory they lie as they do there.
    """
    kept = getattr(_buffers, name, None)
    if kept is None or kept.size < size + ALIGN:
        kept = buffer(size + ALIGN)
        setattr(_buffers, name, kept)
    phase = place % ALIGN
    return kept[phase : phase + size]


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
