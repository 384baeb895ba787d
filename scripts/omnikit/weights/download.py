"""A download from its settings to its result: ask the source, compare, fetch, report."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from omnikit.errors import InputError
from omnikit.weights import (
    download_check,
    download_place,
    download_plan,
    download_record,
    download_run,
    download_source,
)
from omnikit.weights.checkpoint import INDEX
from omnikit.weights.download_plan import KEPT, Item
from omnikit.weights.download_record import Record
from omnikit.weights.download_request import free_bytes
from omnikit.weights.download_types import Listing, Patience, RemoteFile
from omnikit.weights.meter import Meter, size_text

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

    @property
    def patience(self) -> Patience:
        """How often and how long the network is tried."""
        return Patience(self.given.attempts, self.given.delay_s, self.given.timeout_s)

    def wanted(self, name: str) -> bool:
        """Whether the patterns choose a file."""
        return download_plan.wanted(name, self.given.include, self.given.exclude)


def download(job: Job, say: Say) -> dict[str, Any]:
    """Make the target equal to the source; what was done, as data.

    Raises InputError: wrong settings, strangers' files, no space: nothing was changed.
    Raises ActionError: the source's no, no network, damaged files; the next run goes on.
    """
    download_source.check(job.given)
    _check_target(job)
    listing = _listing(job, say)
    if job.dry_run:
        return _download(job, say, listing)
    with download_run.locked(job.target):
        return _download(job, say, listing)


def _listing(job: Job, say: Say) -> Listing:
    listing = download_source.listing(job.given, job.patience, job.token, say)
    for note in listing.notes:
        say(f"{listing.origin}: {note}")
    download_check.check_list(listing, not job.given.include, job.wanted)
    return listing


def _check_target(job: Job) -> None:
    above = next(one for one in (job.target, *job.target.parents) if one.exists())
    if not above.is_dir():
        raise InputError("is no folder.", where=str(above), todo="choose another target")
    if not os.access(above, os.W_OK):
        raise InputError(
            "cannot be written by this user.", where=str(above), todo="choose another target"
        )
    source = download_source.folder(job.given)
    if source is not None:
        download_place.check_apart(source, job.target)


def _download(job: Job, say: Say, listing: Listing) -> dict[str, Any]:
    files, others = download_plan.selected(listing, job.given.include, job.given.exclude)
    record = download_record.read(job.target)
    meter = Meter(download_plan.to_read(job.target, files, record, job.verify), say, "compared")
    items = download_plan.compare(
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
    headers = download_run.run(
        job.target, listing, items, job.wanted, record,
        workers=job.given.workers, patience=job.patience, say=say,
    )  # fmt: skip
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
                path = download_plan.part_of(job.target, INDEX)
            here = not item.to_do or (item.here and item.here == item.file.size)
            asked = (item.file, listing, job.patience, say)
            text = path.read_bytes() if here else download_source.text_of(*asked)
            download_check.check_index(text, listing, job.wanted)


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
        "free_bytes": free_bytes(job.target),
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
