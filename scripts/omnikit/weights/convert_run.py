"""Carries a conversion out: all cores, bounded memory, and where a run was cut the next goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import IO, Any, Callable, Optional

from omnikit import host_records
from omnikit.errors import ActionError, ToolkitError
from omnikit.weights import (
    checkpoint,
    convert_check,
    convert_faults,
    convert_plan,
    convert_records,
    convert_rows,
)
from omnikit.weights.convert_places import check_places, settled, work_folder
from omnikit.weights.convert_plan import Conversion, NewShard, Piece
from omnikit.weights.meter import Meter

# Of the source, read at once by each thread. Buffers of all threads stay below _MEMORY.
CHUNK = 16 << 20
_MEMORY = 1 << 30
# Threads beyond those that compute: while some wait for the disk, all cores have work.
_WAITING = 2
Convert = Callable[[convert_rows.Rows, Optional[tuple[int, int]], Any, int, int], None]


def run(
    conversion: Conversion,
    target: Path,
    threads: int,
    meter: Meter,
    convert: Convert = convert_rows.convert,
) -> dict[str, Any]:
    """Make target of a source; returns the manifest.

    Raises InputError: target is taken, or lies in the source. Raises ActionError: no space, a
    damaged source, another conversion under way. What was done is kept in work_folder(target).
    """
    target = settled(target)
    check_places(_folder(conversion), target)
    work = work_folder(target)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock, todo = work / convert_records.LOCK, "wait for it, or end that process: it can go on"
        with host_records.locked(lock, f"conversion into {target}", todo=todo):
            # Another run may have ended between the look at the target and this lock.
            if convert_records.finished(target, conversion):
                convert_records.forget(work)
                work.rmdir()
                return checkpoint.read_json(target / convert_plan.MANIFEST)
            manifest = _Run(conversion, work, threads, meter, convert).run()
            if target.is_dir():
                target.rmdir()  # empty: finished() has looked
            work.rename(target)
            _sync_folder(target.parent)
            # Last: a run that is cut before finds all shards done, or a finished target.
            convert_records.forget(target)
            _sync_folder(target)
    except OSError as error:
        raise _explained(error, work, conversion) from error
    return manifest


def _folder(conversion: Conversion) -> Path:
    return conversion.checkpoint.folder


class _Run:
    """One run of a conversion, in its locked working folder."""

    def __init__(
        self, conversion: Conversion, work: Path, threads: int, meter: Meter, convert: Convert
    ) -> None:
        self.conversion = conversion
        self.work = work
        self.threads = threads + _WAITING
        self.meter = meter
        self.convert = convert
        self.chunk = max(1 << 20, min(CHUNK, _MEMORY // (3 * self.threads)))
        self.files: dict[str, dict[str, Any]] = {}
        # Not more than this is planned ahead: an error stops the rest at once.
        self.ahead = threading.Semaphore(4 * self.threads)
        self.failed = threading.Event()
        self.futures: set[Future[None]] = set()
        self.jobs: set[_ShardJob] = set()

    def run(self) -> dict[str, Any]:
        convert_records.begin(self.work, self.conversion)
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for shard in self.conversion.shards:
                    record = convert_records.done(self.work, self.conversion, shard)
                    if record is None:
                        self._start(pool, shard)
                    else:
                        self._submit(pool, self._check, shard, record)
                    if self.failed.is_set():
                        break
                wait_for(self.futures)
                for future in self.futures:
                    future.result()
            except BaseException:
                self.failed.set()
                pool.shutdown(cancel_futures=True)
                for job in self.jobs:
                    job.abandon()
                raise
        return self._finish()

    def _submit(self, pool: ThreadPoolExecutor, act: Callable[..., None], *given: Any) -> None:
        self.ahead.acquire()

        def guarded() -> None:
            try:
                if not self.failed.is_set():
                    act(*given)
            except BaseException:
                self.failed.set()
                raise
            finally:
                self.ahead.release()

        future = pool.submit(guarded)
        self.futures = {one for one in self.futures if not one.done() or one.exception()}
        self.futures.add(future)

    def _start(self, pool: ThreadPoolExecutor, shard: NewShard) -> None:
        """Submit all parts of a shard."""
        job = _ShardJob(self, shard)
        for piece in sorted(shard.pieces, key=lambda one: one.source.start):
            scales = job.scales(piece)
            for rows in convert_rows.cut(piece, self.chunk):
                if self.failed.is_set():
                    return
                job.expect()
                self._submit(pool, job.part, rows, scales)
        self._submit(pool, job.one_less)

    def _check(self, shard: NewShard, record: dict[str, Any]) -> None:
        """A shard of an earlier run: used again when its content is what was written."""
        found = convert_records.sha256(self.work / shard.name)
        convert_rows.drop_cache(self.work / shard.name)
        if found != record["sha256"]:
            raise ActionError(
                "is not what an earlier run has written: the disk may be damaged.",
                where=str(self.work / shard.name),
                todo="remove this file and run again",
            )
        self.files[shard.name] = {"size": shard.size, "sha256": found}
        self.meter.skip(sum(piece.source.size for piece in shard.pieces))

    def _finish(self) -> dict[str, Any]:
        """All small files, a last look at the whole, and the manifest."""
        texts: dict[str, Any] = {"config.json": self.conversion.config}
        texts[checkpoint.INDEX] = self.conversion.index()
        for name, data in texts.items():
            text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
            host_records.write_atomically(self.work / name, text)
        for path in convert_plan.other_files(_folder(self.conversion)):
            _copy(path, self.work / path.name)
            texts[path.name] = None
        for name in texts:
            path = self.work / name
            digest = convert_records.sha256(path)
            self.files[name] = {"size": path.stat().st_size, "sha256": digest}
        checked = convert_check.look(self.conversion, self.work, self.threads)
        manifest = convert_records.manifest(self.conversion, self.files, checked)
        text = json.dumps(manifest, indent=1) + "\n"
        host_records.write_atomically(self.work / convert_plan.MANIFEST, text)
        _sync_folder(self.work)
        return manifest


class _ShardJob:
    """A shard that is being written: NAME.part, renamed when all of it is on the disk."""

    def __init__(self, run: _Run, shard: NewShard) -> None:
        self.run = run
        self.shard = shard
        self.source: Optional[IO[bytes]] = None
        self.target: Optional[IO[bytes]] = None
        self.part_file = run.work / f"{shard.name}.part"
        self._as_planned()
        run.jobs.add(self)  # before there is a file: an interrupt at any moment finds it
        self.source = (_folder(run.conversion) / shard.source).open("rb", buffering=0)
        self.target = self.part_file.open("wb", buffering=0)
        self.target.truncate(shard.size)
        os.pwrite(self.target.fileno(), shard.head, 0)
        self.lock = threading.Lock()
        self.left = 1  # until all parts are submitted

    def scales(self, piece: Piece) -> Any:
        """A piece's block scales, from whatever file has them."""
        if piece.scales is None or piece.what == convert_plan.COPY:
            return None
        return convert_rows.block_scales(_folder(self.run.conversion), piece.scales)

    def expect(self) -> None:
        """One more part will be submitted."""
        with self.lock:
            self.left += 1

    def part(self, rows: convert_rows.Rows, scales: Any) -> None:
        """Convert some rows."""
        block = self.run.conversion.block
        assert self.source is not None and self.target is not None
        self.run.convert(rows, block, scales, self.source.fileno(), self.target.fileno())
        self.run.meter.add(rows.size)
        self.one_less()

    def one_less(self) -> None:
        """A part is done, or all are submitted; the last of these completes the file."""
        with self.lock:
            self.left -= 1
            last = self.left == 0
        if last:
            self._complete()

    def abandon(self) -> None:
        """Half a file is of no use."""
        self._close()
        self.part_file.unlink(missing_ok=True)

    def _close(self) -> None:
        for file in (self.target, self.source):
            if file is not None:
                file.close()

    def _complete(self) -> None:
        assert self.target is not None
        os.fsync(self.target.fileno())
        self._close()
        self._as_planned()
        digest = convert_records.sha256(self.part_file)
        convert_rows.drop_cache(self.part_file)
        self.part_file.rename(self.run.work / self.shard.name)
        _sync_folder(self.run.work)
        made_of = convert_records.stamp(self.run.conversion, self.shard)
        record = {"size": self.shard.size, "sha256": digest, "made_of": made_of}
        convert_records.write(self.run.work, self.shard, record)
        self.run.jobs.discard(self)
        self.run.files[self.shard.name] = {"size": self.shard.size, "sha256": digest}

    def _as_planned(self) -> None:
        """Raises ActionError: the source is not what it was when its headers were read."""
        changed = convert_records.changed_file(self.run.conversion, self.shard)
        if changed is not None:
            raise ActionError(
                "was changed while it was converted.",
                where=str(changed),
                todo="wait until the source is complete, then run again",
            )


def _copy(path: Path, to: Path) -> None:
    """A small file, on the disk before the folder gets its name."""
    shutil.copyfile(path, to)
    with to.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Names of files survive a power failure only when their folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, work: Path, conversion: Conversion) -> ToolkitError:
    # A name alone is of a source's file: what reads it knows no more.
    where = _folder(conversion) / error.filename if error.filename else work
    # Making the folder and its lock come first; a write has no name, the renaming has a second.
    first = error.filename is not None and error.filename2 is None
    if not convert_faults.is_there(work) or (first and where in (work, work / ".lock")):
        return convert_faults.refused(error, where)
    kept = [one for one in conversion.shards if convert_faults.is_there(work / one.name)]
    rest = f"{len(kept)} of {len(conversion.shards)} files are done and kept in {work}"
    return ActionError(
        f"{convert_faults.what(error)}; {rest}.",
        where=str(error.filename2 or where),
        todo=f"{convert_faults.todo(error, where)}, then run again",
    )
