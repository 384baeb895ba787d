"""Carries a conversion out: all cores, bounded memory, and where a run was cut the next goes on."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any, Callable, Iterator

from hostkit.base import records, writing
from hostkit.base.errors import ActionError, ToolkitError
from omnikit.weights.checkpoint import hashes as file_hashes
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.hashes import MANIFEST, sha256
from omnikit.weights.checkpoint.w8a8 import Conversion, NewShard
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.convert.shard import Convert, ShardJob
from omnikit.weights.meter import Meter
from omnikit.weights.verify import numbers as verify_numbers
from omnikit.weights.verify import structure as verify_structure

# Of the source, read at once by each thread: what was read, what is written and hashed of it stays
# in a processor's cache.
CHUNK = 8 << 20
_MEMORY = 1 << 30
# Threads beyond those that compute: while some wait for the disk, all cores have work.
_WAITING = 4
# A file has one hash, one part after the other, which keeps up with two to three converting cores:
# with more cores, more files are made side by side. A run that is killed loses what these hold.
_CORES_OF_A_FILE, _MOST_FILES = 2, 16
# The last look, of each kind and of each matrix: a second or two, whatever the checkpoint's size.
# verify_weights.py looks at more.
_MATRICES, _ROWS = 3, 8


def run(
    conversion: Conversion,
    target: Path,
    threads: int,
    meter: Meter,
    convert: Convert = convert_shard.convert,
) -> dict[str, Any]:
    """Make target of a source; returns the manifest.

    Raises InputError: target is taken, or lies in the source. Raises ActionError: no space, a
    damaged source, another conversion under way. What was done is kept.
    """
    target = convert_records.settled(target)
    convert_records.check_places(_folder(conversion), target)
    work = convert_records.work_folder(target)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock, todo = work / convert_records.LOCK, "wait for it, or end that process: it can go on"
        with records.locked(lock, f"conversion into {target}", todo=todo):
            # Another run may have ended between the look at the target and this lock.
            if convert_records.finished(target, conversion):
                convert_records.forget(work)
                work.rmdir()
                return headers.read_json(target / MANIFEST)
            manifest = _Run(conversion, work, threads, meter, convert).run()
            if target.is_dir():
                target.rmdir()  # empty: finished() has looked
            work.rename(target)
            writing.sync_folder(target.parent)
            # Last: a run that is cut before finds all shards done, or a finished target.
            convert_records.forget(target)
            writing.sync_folder(target)
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
        self.chunk = max(1 << 20, min(CHUNK, _MEMORY // (3 * self.threads)))
        self.side_by_side = min(_MOST_FILES, 1 + threads // _CORES_OF_A_FILE)
        self.meter = meter
        self.convert = convert
        self.files: dict[str, dict[str, Any]] = {}
        self.published, self.publisher = file_hashes.published(_folder(conversion))
        self.as_published: set[str] = set()
        # Not more than this is planned ahead: an error stops the rest at once.
        self.ahead = threading.Semaphore(4 * self.threads)
        self.failed = threading.Event()
        self.futures: set[Future[None]] = set()
        self.jobs: set[ShardJob] = set()

    def run(self) -> dict[str, Any]:
        convert_records.begin(self.work, self.conversion)
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                self._submit_all(pool)
                # Files that hold nothing but block scales.
                for name in set(self.conversion.checkpoint.shards).difference(
                    one.source for one in self.conversion.shards
                ):
                    self._submit(pool, self._check_source, name)
                wait_for(self.futures)
                for future in self.futures:
                    future.result()
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                for job in self.jobs:
                    job.abandon()
                raise
        return self._finish()

    def _stop(self) -> None:
        """Whatever is not begun yet is not begun, and nobody waits for it."""
        self.failed.set()
        for job in list(self.jobs):
            job.turns.wake()

    def _submit_all(self, pool: ThreadPoolExecutor) -> None:
        """Parts of a few files by turns, each file's in their order."""
        shards, begun = iter(self.conversion.shards), deque[Iterator[None]]()
        while not self.failed.is_set():
            while len(begun) < self.side_by_side and (shard := next(shards, None)) is not None:
                record = convert_records.done(self.work, self.conversion, shard)
                if record is None and shard.linked:
                    self._submit(pool, self._take, shard)
                elif record is None:
                    begun.append(self._parts(pool, shard))
                else:
                    self._submit(pool, self._check, shard, record)
            if not begun:
                return
            first = begun.popleft()
            if next(first, self) is None:
                begun.append(first)

    def _submit(self, pool: ThreadPoolExecutor, act: Callable[..., None], *given: Any) -> None:
        self.ahead.acquire()

        def guarded() -> None:
            try:
                if not self.failed.is_set():
                    act(*given)
            except BaseException:
                self._stop()
                raise
            finally:
                self.ahead.release()

        future = pool.submit(guarded)
        if len(self.futures) > 8 * self.threads:
            self.futures = {one for one in self.futures if not one.done() or one.exception()}
        self.futures.add(future)

    def _parts(self, pool: ThreadPoolExecutor, shard: NewShard) -> Iterator[None]:
        """Submit a shard, one part after each step."""
        job = ShardJob(self.conversion, shard, self.work, self.failed)
        self.jobs.add(job)  # before there is a file: an interrupt at any moment finds it
        job.begin()
        for piece in shard.pieces:
            scales = convert_shard.scales_of(_folder(self.conversion), piece)
            for rows in convert_shard.cut(piece, self.chunk):
                job.expect()
                self._submit(pool, self._part, job, rows, scales)
                yield
        self._submit(pool, self._one_less, job)

    def _part(self, job: ShardJob, rows: convert_shard.Rows, scales: Any) -> None:
        if job.part(rows, scales, self.convert):
            self.meter.add(rows.size)
            self._one_less(job)

    def _one_less(self, job: ShardJob) -> None:
        if job.one_less():
            self.files[job.shard.name] = job.complete()
            self.jobs.discard(job)
            self._check_source(job.shard.source)

    def _take(self, shard: NewShard) -> None:
        """The source's file as it is: another name for it, or a copy where it lies elsewhere."""
        source, place = _folder(self.conversion) / shard.source, self.work / shard.name
        try:
            os.link(source.resolve(), place)  # a hub's cache has links to its files
        except OSError:  # another disk, or a file system that has no second names
            part = self.work / f"{shard.name}.part"
            _copy(source, part)
            part.rename(place)
        told = {"size": shard.size, "sha256": sha256(place, self.meter.add)}
        self._check_source(shard.source, f"sha256:{told['sha256']}")
        made_of = convert_records.stamp(self.conversion, shard)
        convert_records.write(self.work, shard, {**told, "made_of": made_of})
        self.files[shard.name] = told

    def _check_source(self, name: str, found: str = "") -> None:
        """Hold a file of the source, which was read just now, against its published hash; found:
        its hash, where it is known. Raises ActionError.
        """
        wanted = self.published.get(name)
        if wanted is None:
            return
        if found.partition(":")[0] != wanted.partition(":")[0]:
            found = file_hashes.of_file(_folder(self.conversion) / name, wanted)
        if found != wanted:
            raise ActionError(
                f"is not as it was published ({self.publisher}): {found}, expected {wanted}.",
                where=str(_folder(self.conversion) / name),
                todo="fetch it again (invoke download-weights --verify), then run again",
            )
        self.as_published.add(name)

    def _check(self, shard: NewShard, record: dict[str, Any]) -> None:
        """A shard of an earlier run: used again when its content is what was written."""
        found = sha256(self.work / shard.name)
        convert_shard.drop_cache(self.work / shard.name)
        if found != record["sha256"]:
            raise ActionError(
                "is not what an earlier run has written: the disk may be damaged.",
                where=str(self.work / shard.name),
                todo="remove this file and run again",
            )
        self.files[shard.name] = {"size": shard.size, "sha256": found}
        self._check_source(shard.source)
        self.meter.skip(sum(piece.source.size for piece in shard.pieces))

    def _finish(self) -> dict[str, Any]:
        """All small files, a last look at the whole, and the manifest."""
        texts: dict[str, Any] = self.conversion.texts()
        for name, data in texts.items():
            text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
            writing.write_atomically(self.work / name, text)
        head, zeros = self.conversion.offsets()
        if head:
            with (self.work / w8a8.OFFSETS).open("wb") as file:
                file.write(head)
                file.truncate(len(head) + zeros)
                os.fsync(file.fileno())
            texts[w8a8.OFFSETS] = None
        for path in w8a8.other_files(_folder(self.conversion)):
            _copy(path, self.work / path.name)
            texts[path.name] = None
        for name in texts:
            path = self.work / name
            digest = sha256(path)
            self.files[name] = {"size": path.stat().st_size, "sha256": digest}
        checked = _look(self.conversion, self.work, self.threads)
        shards = self.conversion.checkpoint.shards
        published = {
            **{"as_published": len(self.as_published), "of": len(shards)},
            "by": self.publisher if self.as_published else None,
        }
        manifest = convert_records.manifest(self.conversion, self.files, checked, published)
        text = json.dumps(manifest, indent=1) + "\n"
        writing.write_atomically(self.work / MANIFEST, text)
        writing.sync_folder(self.work)
        return manifest


def _look(conversion: Conversion, work: Path, threads: int) -> dict[str, Any]:
    """Every tensor's name, dtype and shape, and a sample of the numbers against the source's.

    Returns what was compared: {matrices, values, max_error_steps}. Raises ActionError: the
    result is not what the source gives.
    """
    made = headers.read(work)
    structure = verify_structure.look(made, conversion)
    silent = Meter(0, lambda _: None)
    kinds = verify_numbers.compare(conversion, made, False, _ROWS, _MATRICES, threads, silent)
    problems = [*structure.problems, *(text for kind in kinds for text in kind.problems())]
    if problems:
        raise ActionError(
            f"the result is not what the source gives: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            where=str(work),
            todo=f"check this machine's memory and disk, then begin anew: rm -r {work}",
        )
    return {
        "matrices": sum(kind.checked for kind in kinds),
        "values": sum(kind.values for kind in kinds),
        "max_error_steps": max(kind.largest for kind in kinds),
    }


def _copy(path: Path, to: Path) -> None:
    """A small file, on the disk before the folder gets its name."""
    shutil.copyfile(path, to)
    with to.open("rb") as file:
        os.fsync(file.fileno())


def _explained(error: OSError, work: Path, conversion: Conversion) -> ToolkitError:
    # A name alone is of a source's file: what reads it knows no more.
    where = _folder(conversion) / error.filename if error.filename else work
    # Making the folder and its lock come first; a write has no name, the renaming has a second.
    first = error.filename is not None and error.filename2 is None
    if not convert_records.is_there(work) or (first and where in (work, work / ".lock")):
        return convert_records.refused(error, where)
    kept = [one for one in conversion.shards if convert_records.is_there(work / one.name)]
    rest = f"{len(kept)} of {len(conversion.shards)} files are done and kept in {work}"
    return ActionError(
        f"{convert_records.what(error)}; {rest}.",
        where=str(error.filename2 or where),
        todo=f"{convert_records.todo(error, where)}, then run again",
    )
