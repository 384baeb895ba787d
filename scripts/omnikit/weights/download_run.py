"""Carries a download out: several files at once, each kept when it is verified, config.json last.

While anything is missing, the target has no config.json and no index: nothing takes it for a model.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterator, Sequence

from omnikit import host_records
from omnikit.errors import ActionError
from omnikit.weights import download_check, download_faults, download_transfer
from omnikit.weights.checkpoint import INDEX
from omnikit.weights.download_plan import UNCHANGED, Item, part_of
from omnikit.weights.download_record import Record
from omnikit.weights.download_request import Requests
from omnikit.weights.download_transfer import Fetch
from omnikit.weights.download_types import Listing, Patience, staging
from omnikit.weights.meter import Meter

_LAST = ("config.json", INDEX)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the target. Raises ActionError: another download is at work there."""
    path = staging(target) / "lock"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(host_records.locked(path, f"a download into {target}"))
        except ActionError as error:
            raise ActionError(
                error.what, where=str(target), todo="wait for it, or end that process; then again"
            ) from error
        except OSError as error:
            raise download_faults.unwritable(error, target) from error
        yield


def run(
    target: Path,
    listing: Listing,
    items: Sequence[Item],
    wanted: download_check.Wanted,
    record: Record,
    *,
    workers: int,
    patience: Patience,
    say: Callable[[str], None],
) -> int:
    """Fetch what is to be fetched; the number of headers checked at the end.

    The target must be locked. Raises ActionError; what was fetched by then is kept.
    """
    return _Run(target, listing, items, record, patience, say).run(workers, wanted)


class _Run:
    def __init__(
        self,
        target: Path,
        listing: Listing,
        items: Sequence[Item],
        record: Record,
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        self.target = target
        self.listing = listing
        self.items = items
        self.record = record
        self.meter = Meter(sum(one.missing + one.here for one in items), say, "downloaded")
        self.meter.skip(sum(one.here for one in items))
        requests = Requests(patience.timeout_s, listing.host, listing.headers, listing.hub)
        self.fetch = Fetch(requests, patience, self.meter.add, say)
        self.lock = threading.Lock()
        self.withdrawn = False
        self.found: dict[str, str] = {one.file.name: one.found for one in items}

    def run(self, workers: int, wanted: download_check.Wanted) -> int:
        self.record.of_source(self.listing)
        try:
            for item in self.items:
                if item.action == UNCHANGED:
                    self.record.note(item.file, item.found)
            self.record.write()
            todo = [one for one in self.items if one.to_do]
            # The index first: a shard that the source has not shows at once, and nothing changed.
            self._all([one for one in todo if one.file.name == INDEX], workers)
            names = [one.file.name for one in self.items]
            if INDEX in names:
                text = self._place(INDEX).read_bytes()
                download_check.check_index(text, self.listing, wanted)
            # Then small files: a wrong token or name shows before the first shard.
            others = [one for one in todo if one.file.name != INDEX]
            self._all(sorted(others, key=lambda one: one.file.size or 0), workers)
            headers = download_check.check(names, wanted, self._place, self.listing.origin)
            for item in self.items:
                if item.file.name in _LAST and part_of(self.target, item.file.name).is_file():
                    self._put(item)
            self._clear()
            host_records.sync_folder(self.target)
        except OSError as error:
            raise download_faults.unwritable(error, self.target) from error
        except KeyboardInterrupt:
            self.fetch.say("what was fetched is kept; the same command goes on from here")
            raise
        return headers

    def _all(self, items: Sequence[Item], workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._one, item) for item in items]
            try:
                self._wait(futures)
            except BaseException:
                self.fetch.halt()
                pool.shutdown(cancel_futures=True)
                raise

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        """The first that fails is told; the others stop."""
        done, _ = wait(futures, return_when="FIRST_EXCEPTION")
        for future in done:
            future.result()

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
        download_transfer.moved(part_of(self.target, name), self.target / name)
        self.record.put(item.file, self.found[name])

    def _withdraw(self) -> None:
        """Before the first file changes: what makes a model of the folder goes into staging."""
        if self.withdrawn:
            return
        self.withdrawn = True
        for item in self.items:
            path = self.target / item.file.name
            if item.file.name in _LAST and path.is_file() and item.action == UNCHANGED:
                download_transfer.taken_back(item.file, path, part_of(self.target, path.name))
            elif item.file.name in _LAST and path.is_file() and item.to_do:
                path.unlink()  # its successor is fetched by now, or soon
        host_records.sync_folder(self.target)

    def _clear(self) -> None:
        """Parts of files that the source has no more are of no use."""
        listed = {part_of(self.target, file.name) for file in self.listing.files}
        for part in staging(self.target).rglob("*.incomplete"):
            if part not in listed:
                download_transfer.forget(part)

    def _place(self, name: str) -> Path:
        part = part_of(self.target, name)
        return part if name in _LAST and part.is_file() else self.target / name
