"""A file of a conversion that is being made, by several threads: NAME.part, and its hash. The unit
of work is some rows of one tensor, read and computed.

The file is written past the page cache, where its file system can: less than half the processor's
time of a write, and other programs keep what they have cached.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Optional

import numpy as np

from hostkit.base import writing
from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint.hashes import sha256
from omnikit.weights.checkpoint.headers import SIZES, Tensor
from omnikit.weights.checkpoint.w8a8 import COPY, QUANTISE, Conversion, NewShard, Piece
from omnikit.weights.convert import records as convert_records

# Of places in the file and in memory: what every disk and file system takes (open(2), O_DIRECT).
ALIGN = 4096
# Bytes that are handed to the page cache at once, where there is no way past it. It caches larger
# pieces in larger pages; a virtual machine gives those back to its host when they are freed, and
# has to get them anew.
_PIECE = 256 << 10
_buffers = threading.local()


def buffer(size: int) -> Any:
    """uint8 [size] that begins at a multiple of ALIGN."""
    raw = np.empty(size + ALIGN, np.uint8)
    skip = -raw.ctypes.data % ALIGN
    return raw[skip : skip + size]


class DirectFile:
    """A new file of size bytes. Several threads may write, each its own bytes, each byte once."""

    def __init__(self, path: Path, size: int) -> None:
        self.file = path.open("xb", buffering=0)
        self.direct: Optional[int] = None
        # Bytes at the ends of what was written that do not fill an aligned block: kept until the
        # end, for one block written both ways would have to be waited for.
        self.edges: list[tuple[int, bytes]] = []
        try:
            self.file.truncate(size)
            self.direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is how a file system says that it cannot
                self.close()
                raise

    def write(self, start: int, data: memoryview) -> None:
        """Put data at start. Only what lies in memory as in the file, seen from a multiple of
        ALIGN (see buffer), goes straight to the disk. Raises OSError.
        """
        lead = -start % ALIGN
        whole = (len(data) - lead) // ALIGN * ALIGN
        direct = self.direct
        if direct is None or whole <= 0 or not _lies_as_in_file(data, start):
            self._write_plain(start, data)
            return
        for at, end in ((0, lead), (lead + whole, len(data))):
            if at < end:
                self.edges.append((start + at, bytes(data[at:end])))
        done, middle = 0, data[lead : lead + whole]
        while done < whole:
            try:
                done += os.pwrite(direct, middle[done:], start + lead + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # A file system that says so only now, or what is left after a short write.
                self._write_plain(start + lead + done, middle[done:])
                return

    def _write_plain(self, start: int, data: memoryview) -> None:
        descriptor, done = self.file.fileno(), 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done : done + _PIECE], start + done)
        # What is dirty begins to go to the disk now, and not all at once when the file is complete.
        os.posix_fadvise(descriptor, start, len(data), os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        """All of it is on the disk, and the file is closed. Raises OSError."""
        for start, data in self.edges:
            self._write_plain(start, memoryview(data))
        os.fsync(self.file.fileno())
        self.close()

    def close(self) -> None:
        """Close it, complete or not; a second time does nothing."""
        if self.direct is not None:
            os.close(self.direct)
            self.direct = None
        self.file.close()


def _lies_as_in_file(data: memoryview, start: int) -> bool:
    return (int(np.frombuffer(data, np.uint8).ctypes.data) - start) % ALIGN == 0


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


def scales_of(folder: Path, piece: Piece) -> Any:
    """A piece's block scales, from whatever file has them: float32 [block rows, block columns].
    None where it needs none.

    0 is one of a block of zeros. Raises ActionError: a scale that is negative or not finite.
    """
    tensor = piece.scales
    if tensor is None or piece.what == COPY:
        return None
    told = np.empty(tensor.shape, np.float32 if tensor.dtype == "F32" else np.uint16)
    with (folder / tensor.file).open("rb", buffering=0) as file:
        read_at(file.fileno(), told.data.cast("B"), tensor.start, tensor)
    scales = told if tensor.dtype == "F32" else (told.astype(np.uint32) << 16).view(np.float32)
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


def convert(rows: Rows, block: Optional[tuple[int, int]], scales: Any, source: int) -> Made:
    """Read rows from the file descriptor source and compute.

    scales: scales_of the piece. Raises ActionError: numbers that are not finite, a source that ends
    early. Raises OSError.
    """
    # Late: LLVM takes time to load.
    from omnikit.weights.convert import kernels

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
            bad = kernels.quantise_bf16(words, made, row_scales)
        else:
            matrix = data.reshape(count, columns)
            bad = kernels.quantise_fp8(matrix, scales, block, rows.first, made, row_scales)
    else:
        made = target.view(np.uint16).reshape(count, columns)
        bad = kernels.widen_fp8(data.reshape(count, columns), scales, block, rows.first, made)
    if bad >= 0:
        raise _corrupt(tensor, f"row {rows.first + bad} holds what is no finite number")
    return Made(start, target.data, row_scales)


def _buffer(name: str, size: int, place: int) -> Any:
    """uint8 [size], of this thread, used again: fresh memory costs as much as the kernels.

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


Convert = Callable[[Rows, Optional[tuple[int, int]], Any, int], Made]


class Turns:
    """SHA-256 of a file whose parts come from several threads: each waits until it is next.

    So the bytes are hashed while they are in the processor's cache. The file's parts must be begun
    in their order. at: how many bytes were hashed. failed: no part that is missing will come.
    """

    def __init__(self, failed: threading.Event) -> None:
        self.digest = hashlib.sha256()
        self.at = 0
        self.failed = failed
        self.changed = threading.Condition()

    def add(self, start: int, data: Any) -> bool:
        """Hash what lies at start of the file; False when it will never be its turn."""
        with self.changed:
            self.changed.wait_for(lambda: self.at == start or self.failed.is_set())
            if self.failed.is_set():
                return False
        self.digest.update(data)
        with self.changed:
            self.at += len(data)
            self.changed.notify_all()
        return True

    def wake(self) -> None:
        """Nobody waits any longer; failed is set."""
        with self.changed:
            self.changed.notify_all()


class ShardJob:
    """A shard that is being written; it gets its name when all of it is on the disk.

    failed: set when the run has. Raises OSError, and ActionError: the source was changed.
    """

    def __init__(
        self, conversion: Conversion, shard: NewShard, work: Path, failed: threading.Event
    ) -> None:
        self.conversion = conversion
        self.shard = shard
        self.work = work
        self.source: Optional[IO[bytes]] = None
        self.target: Optional[DirectFile] = None
        self.part_file = work / f"{shard.name}.part"
        self.turns = Turns(failed)
        self.row_scales = np.empty((shard.end_scales - shard.scales) // 4, np.float32)
        self.lock = threading.Lock()
        self.left = 1  # until all parts are submitted

    def begin(self) -> None:
        """Open its files."""
        self._as_planned()
        self.source = (self._folder / self.shard.source).open("rb", buffering=0)
        self.target = DirectFile(self.part_file, self.shard.size)
        self.target.write(0, memoryview(self.shard.head))
        self.turns.add(0, self.shard.head)

    @property
    def _folder(self) -> Path:
        return self.conversion.checkpoint.folder

    def expect(self) -> None:
        """One more part will be submitted."""
        with self.lock:
            self.left += 1

    def part(self, rows: Rows, scales: Any, convert: Convert) -> bool:
        """Convert some rows; False when the run has failed meanwhile."""
        assert self.source is not None and self.target is not None
        made = convert(rows, self.conversion.block, scales, self.source.fileno())
        if made.scales is not None:
            first = (rows.piece.scale_start - self.shard.scales) // 4 + rows.first
            self.row_scales[first : first + len(made.scales)] = made.scales
        # First: nobody's turn waits for the disk.
        if self.shard.in_order and not self.turns.add(made.start, made.data):
            return False
        self.target.write(made.start, made.data)
        return True

    def one_less(self) -> bool:
        """A part is done, or all are submitted; whether this was the last of these."""
        with self.lock:
            self.left -= 1
            return self.left == 0

    def complete(self) -> dict[str, Any]:
        """Put the whole file on the disk and give it its name; returns {size, sha256}."""
        assert self.target is not None
        scales = self.row_scales.data.cast("B")
        self.target.write(self.shard.scales, scales)
        self.target.finish()
        self.close()
        self._as_planned()
        if self.shard.in_order:
            self.turns.digest.update(scales)
            digest = self.turns.digest.hexdigest()
        else:
            digest = sha256(self.part_file)
        drop_cache(self.part_file)
        self.part_file.rename(self.work / self.shard.name)
        writing.sync_folder(self.work)
        told = {"size": self.shard.size, "sha256": digest}
        made_of = convert_records.stamp(self.conversion, self.shard)
        convert_records.write(self.work, self.shard, {**told, "made_of": made_of})
        return told

    def abandon(self) -> None:
        """Half a file is of no use."""
        self.close()
        self.part_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close its files."""
        for file in (self.target, self.source):
            if file is not None:
                file.close()

    def _as_planned(self) -> None:
        """Raises ActionError: the source is not what it was when its headers were read."""
        changed = convert_records.changed_file(self.conversion, self.shard)
        if changed is not None:
            raise ActionError(
                "was changed while it was converted.",
                where=str(changed),
                todo="wait until the source is complete, then run again",
            )
