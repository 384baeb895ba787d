"""A download from its settings to its result: ask the source, compare, fetch, report."""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from hostkit.base import records, writing
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import size_text
from hostkit.files import regular
from omnikit.weights.checkpoint.headers import INDEX
from omnikit.weights.download import plan, request, source, transfer
from omnikit.weights.download.plan import KEPT, UNCHANGED, Item, Record, part_of
from omnikit.weights.download.request import Requests
from omnikit.weights.download.transfer import Fetch
from omnikit.weights.download.types import Listing, RemoteFile, staging
from omnikit.weights.meter import Meter

_LAST = ("config.json", INDEX)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """given: the settings weights.download. verify: read all again. replace: strangers' files."""

    target: Path
    given: Any
    token: Optional[str]
    verify: bool = False
    replace: bool = False
    dry_run: bool = False

    def wanted(self, name: str) -> bool:
        """Whether the patterns choose a file."""
        return plan.wanted(name, self.given.include, self.given.exclude)


def download(job: Job, say: Say) -> dict[str, Any]:
    """Make the target equal to the source; what was done, as data.

    Raises InputError: wrong settings, strangers' files, no space: nothing was changed.
    Raises ActionError: the source's no, no network, damaged files; the next run goes on.
    """
    source.check(job.given)
    _check_target(job)
    listing = _listing(job, say)
    if job.dry_run:
        return _download(job, say, listing)
    with _locked(job.target):
        return _download(job, say, listing)


def _listing(job: Job, say: Say) -> Listing:
    listing = source.listing(job.given, job.token, say)
    for note in listing.notes:
        say(f"{listing.origin}: {note}")
    plan.check_list(listing, not job.given.include, job.wanted)
    return listing


def _check_target(job: Job) -> None:
    above = next(one for one in (job.target, *job.target.parents) if one.exists())
    if not above.is_dir():
        raise InputError("is no folder.", where=str(above), todo="choose another target")
    if not os.access(above, os.W_OK):
        raise InputError(
            "cannot be written by this user.", where=str(above), todo="choose another target"
        )
    folder = source.folder(job.given)
    if folder is not None:
        source.check_apart(folder, job.target)


def _download(job: Job, say: Say, listing: Listing) -> dict[str, Any]:
    files, others = plan.selected(listing, job.given.include, job.given.exclude)
    record = plan.read_record(job.target)
    meter = Meter(plan.to_read(job.target, files, record, job.verify), say, "compared")
    items = plan.compare(
        job.target, listing, files, record,
        verify=job.verify, replace=job.replace, threads=job.given.workers, passed=meter.add,
    )  # fmt: skip
    result = _result(job, listing, items, others, record)
    if job.dry_run or not _to_do(items):
        _check_index(job, listing, items, say)
    if job.dry_run:
        return {**result, "result": "would be downloaded" if _to_do(items) else "unchanged"}
    if not _to_do(items) and not job.verify:
        _adopt(listing, items, record)
        return {**result, "result": "unchanged"}
    _check_space(job, result)
    began = time.monotonic()
    fetched = sum(item.missing for item in items)
    if _to_do(items):
        count = sum(item.to_do for item in items)
        say(f"{listing.origin}: {count} of {len(items)} files to fetch, {size_text(fetched)}")
    headers = _Run(job, listing, items, record, say).run()
    return {
        **result,
        "result": "downloaded" if _to_do(items) else "unchanged",
        "fetched_bytes": fetched,
        "headers_checked": headers,
        "seconds": round(time.monotonic() - began, 3),
    }


def _to_do(items: Sequence[Item]) -> bool:
    return any(item.to_do for item in items)


def _check_index(job: Job, listing: Listing, items: Sequence[Item], say: Say) -> None:
    """The index held against the source's list: the one that is here, else the source's."""
    for item in items:
        if item.file.name == INDEX:
            path = job.target / INDEX
            if item.to_do:
                path = part_of(job.target, INDEX)
            here = not item.to_do or (item.here and item.here == item.file.size)
            asked = (item.file, listing, job.given, say)
            text = regular.data(path) if here else source.text_of(*asked)
            plan.check_index(text, listing, job.wanted)


def _adopt(listing: Listing, items: Sequence[Item], record: Record) -> None:
    """Files that are right and that no record knew: the next run need not read them."""
    new = [item for item in items if item.found and not record.untouched(item.file.name)]
    if new or (record.origin, record.revision) != (listing.origin, listing.revision):
        record.of_source(listing)
        for item in items:
            if item.found:
                record.note(item.file, item.found)
        record.write()


def _check_space(job: Job, result: dict[str, Any]) -> None:
    reserve = job.given.free_mib << 20
    needed, free = result["needed_bytes"], result["free_bytes"]
    if needed and needed + reserve > free:
        raise InputError(
            f"needs {size_text(needed)} more and {size_text(reserve)} that stay free,"
            f" {size_text(free)} are free.",
            where=str(job.target),
            todo="free some space, choose another --target, or lower weights.download.free_mib",
        )


def _result(
    job: Job,
    listing: Listing,
    items: Sequence[Item],
    others: Sequence[RemoteFile],
    record: Record,
) -> dict[str, Any]:
    listed = {file.name for file in listing.files}
    stale = [name for name in record.files if name not in listed]
    return {
        "source": listing.origin,
        "revision": listing.revision,
        "target": str(job.target),
        "dry_run": job.dry_run,
        "total_bytes": sum(item.file.size or 0 for item in items),
        "needed_bytes": sum(item.missing for item in items),
        "free_bytes": _free_bytes(job.target),
        "left_out": [file.name for file in others],
        "left_out_bytes": sum(file.size or 0 for file in others),
        "kept": [item.file.name for item in items if item.action == KEPT],
        "unpublished": [item.file.name for item in items if not item.file.hash],
        "stale": [name for name in stale if (job.target / name).is_file()],
        "files": [
            {
                "name": item.file.name,
                "size": item.file.size,
                "hash": item.file.hash or None,
                "action": item.action,
            }
            for item in items
        ],
    }


def _free_bytes(folder: Path) -> int:
    """Where a folder is or will be."""
    absolute = folder.absolute()
    above = next(one for one in (absolute, *absolute.parents) if one.is_dir())
    return shutil.disk_usage(above).free


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the target. Raises ActionError: another download is at work there."""
    path = staging(target) / "lock"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(records.locked(path, f"a download into {target}"))
        except ActionError as error:
            raise ActionError(
                error.what, where=str(target), todo="wait for it, or end that process; then again"
            ) from error
        except OSError as error:
            raise request.unwritable(error, target) from error
        yield


class _Run:
    """Fetches what is to be fetched: several files at once, each kept when it is verified.

    While anything is missing, the target, which must be locked, has no config.json and no index:
    nothing takes it for a model.
    """

    def __init__(
        self, job: Job, listing: Listing, items: Sequence[Item], record: Record, say: Say
    ) -> None:
        self.job = job
        self.target = job.target
        self.listing = listing
        self.items = items
        self.record = record
        meter = Meter(sum(one.missing + one.here for one in items), say, "downloaded")
        meter.skip(sum(one.here for one in items))
        requests = Requests(job.given.timeout_s, listing.host, listing.headers, listing.hub)
        self.fetch = Fetch(requests, job.given, meter.add, say)
        self.lock = threading.Lock()
        self.withdrawn = False
        self.found: dict[str, str] = {one.file.name: one.found for one in items}

    def run(self) -> int:
        """The number of headers checked at the end. Raises ActionError; what was fetched by then is
        kept.
        """
        self.record.of_source(self.listing)
        try:
            for item in self.items:
                if item.action == UNCHANGED:
                    self.record.note(item.file, item.found)
            self.record.write()
            todo = [one for one in self.items if one.to_do]
            # The index first: a shard that the source has not shows at once, and nothing changed.
            self._all([one for one in todo if one.file.name == INDEX])
            names = [one.file.name for one in self.items]
            if INDEX in names:
                text = self._place(INDEX).read_bytes()
                plan.check_index(text, self.listing, self.job.wanted)
            # Then small files: a wrong token or name shows before the first shard.
            others = [one for one in todo if one.file.name != INDEX]
            self._all(sorted(others, key=lambda one: one.file.size or 0))
            headers = plan.check(names, self.job.wanted, self._place, self.listing.origin)
            for item in self.items:
                if item.file.name in _LAST and part_of(self.target, item.file.name).is_file():
                    self._put(item)
            self._clear()
            writing.sync_folder(self.target)
        except OSError as error:
            raise request.unwritable(error, self.target) from error
        except KeyboardInterrupt:
            self.fetch.say("what was fetched is kept; the same command goes on from here")
            raise
        return headers

    def _all(self, items: Sequence[Item]) -> None:
        with ThreadPoolExecutor(self.job.given.workers) as pool:
            futures = [pool.submit(self._one, item) for item in items]
            try:  # the first that fails is told; the others stop
                for future in wait(futures, return_when="FIRST_EXCEPTION").done:
                    future.result()
            except BaseException:
                self.fetch.halt()
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, item: Item) -> None:
        if self.fetch.stop.is_set():
            return
        part = part_of(self.target, item.file.name)
        self.found[item.file.name] = self.fetch.file(item.file, part)
        if item.file.name not in _LAST:
            with self.lock:
                self._withdraw()
            self._put(item)

    def _put(self, item: Item) -> None:
        name = item.file.name
        transfer.moved(part_of(self.target, name), self.target / name)
        self.record.put(item.file, self.found[name])

    def _withdraw(self) -> None:
        """Before the first file changes: what makes a model of the folder goes into staging."""
        if self.withdrawn:
            return
        self.withdrawn = True
        for item in self.items:
            path = self.target / item.file.name
            if item.file.name in _LAST and path.is_file() and item.action == UNCHANGED:
                transfer.taken_back(item.file, path, part_of(self.target, path.name))
            elif item.file.name in _LAST and path.is_file() and item.to_do:
                path.unlink()  # its successor is fetched by now, or soon
        writing.sync_folder(self.target)

    def _clear(self) -> None:
        """Parts of files that the source has no more are of no use."""
        listed = {part_of(self.target, file.name) for file in self.listing.files}
        for part in staging(self.target).rglob("*.incomplete"):
            if part not in listed:
                transfer.forget(part)

    def _place(self, name: str) -> Path:
        part = part_of(self.target, name)
        return part if name in _LAST and part.is_file() else self.target / name
