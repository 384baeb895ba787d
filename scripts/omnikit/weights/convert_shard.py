"""A file of a conversion that is being made, by several threads: NAME.part, and its hash."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import IO, Any, Callable, Optional

import numpy as np

from omnikit import host_records
from omnikit.errors import ActionError
from omnikit.weights import convert_records, convert_rows
from omnikit.weights.convert_layout import COPY, NewShard, Piece
from omnikit.weights.convert_plan import Conversion
from omnikit.weights.direct_file import DirectFile

Convert = Callable[[convert_rows.Rows, Optional[tuple[int, int]], Any, int], convert_rows.Made]


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

    def scales(self, piece: Piece) -> Any:
        """A piece's block scales, from whatever file has them."""
        if piece.scales is None or piece.what == COPY:
            return None
        return convert_rows.block_scales(self._folder, piece.scales)

    def expect(self) -> None:
        """One more part will be submitted."""
        with self.lock:
            self.left += 1

    def part(self, rows: convert_rows.Rows, scales: Any, convert: Convert) -> bool:
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
            digest = convert_records.sha256(self.part_file)
        convert_rows.drop_cache(self.part_file)
        self.part_file.rename(self.work / self.shard.name)
        host_records.sync_folder(self.work)
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
