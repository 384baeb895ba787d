"""Compares a source with the target: what is to be fetched, what is there, what is in the way; and
whether the source has a whole checkpoint, by its list and index before, by all headers afterwards.

What earlier runs have fetched stands in a record in the target's staging folder.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Callable, Collection, Optional, Sequence

from hostkit.base import writing
from hostkit.base.errors import ActionError, InputError
from hostkit.base.values import parsed
from hostkit.files import regular
from omnikit.weights.checkpoint.hashes import RECORD, of_file
from omnikit.weights.checkpoint.headers import INDEX, read_header
from omnikit.weights.download import transfer
from omnikit.weights.download.types import Listing, RemoteFile, staging

# Names of files that hold weights.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_COMPLETE = "complete it there, or choose another source or revision"

Wanted = Callable[[str], bool]
UNCHANGED, FETCH, GO_ON, REPLACE, KEPT = "unchanged", "fetch", "continue", "replace", "keep"
FOREIGN = "differs"  # and no run of ours has made it


def check_list(listing: Listing, whole: bool, wanted: Wanted) -> None:
    """Hold the names of a source's files against what a checkpoint has, before anything is fetched.

    whole: a whole checkpoint is wanted, not files that patterns include. wanted: whether the
    patterns choose a name. Raises ActionError: what is expected, and what the source has.
    """
    lost = [f"{name} ({why})" for name, why in listing.lost.items() if wanted(name)]
    if lost:
        raise ActionError(
            f"does not give {len(lost)} of its files: {_some(lost, '; ')}.",
            where=listing.origin,
            todo=f"{_COMPLETE}; or leave them out with --exclude",
        )
    names = [file.name for file in listing.files]
    lacks = _lacks([name for name in names if "/" not in name]) if whole else ""
    if lacks:
        raise ActionError(
            f"is no whole checkpoint: it lacks {lacks}; it has {_some(names) or 'no files'}.",
            where=listing.origin,
            todo=f"name the folder or repository of the checkpoint itself; {_COMPLETE};"
            " or name the files that you want with --include",
        )


def _lacks(names: Sequence[str]) -> str:
    if "config.json" not in names:
        return "config.json"
    shards = [name for name in names if "-of-" in name and name.endswith(".safetensors")]
    if shards and not any(name.endswith(".safetensors.index.json") for name in names):
        return f"{INDEX}, which tells how many files like {min(shards)} there are"
    if INDEX not in names and not any(name.endswith(WEIGHTS) for name in names):
        return "weights (*.safetensors)"
    return ""


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return between.join(names[:5]) + more


def check_index(text: bytes, listing: Listing, wanted: Wanted) -> None:
    """Hold the index against the source's list, before any of its shards is fetched.

    Raises ActionError: it names shards that the source has not.
    """
    weight_map = _weight_map(text)
    if weight_map is None:
        _refuse([f"{INDEX} has no weight_map"], listing.origin)
    names = {file.name for file in listing.files}
    _refuse(_missing(set((weight_map or {}).values()) - names, wanted), listing.origin)


def check(names: Collection[str], wanted: Wanted, place: Callable[[str], Path], origin: str) -> int:
    """Hold the fetched files against each other; the number of headers read.

    names: files that are here. wanted: whether the patterns choose a name. place: where a file
    lies. Raises ActionError: what the source has is no whole checkpoint.
    """
    problems = []
    headers = {}
    for name in sorted(names):
        if name.endswith(".safetensors"):
            try:
                headers[name] = set(read_header(place(name))[0])
            except InputError as error:
                problems.append(f"{name} {error.what.rstrip('.')}")
    if INDEX in names:
        problems += _against_index(place(INDEX), headers, wanted)
    _refuse(problems, origin)
    return len(headers)


def _refuse(problems: Sequence[str], origin: str) -> None:
    if problems:
        raise ActionError(
            f"is no whole checkpoint: {_some(problems, '; ')}.",
            where=origin,
            todo=f"its files are as published there: {_COMPLETE}",
        )


def _against_index(index: Path, headers: dict[str, set[str]], wanted: Wanted) -> list[str]:
    weight_map = _weight_map(index.read_bytes())
    if weight_map is None:
        return [f"{INDEX} has no weight_map"]
    problems = []
    shards = set(weight_map.values())
    for shard in sorted(shards & set(headers)):
        said = {name for name, file in weight_map.items() if file == shard}
        lost, more = said - headers[shard], headers[shard] - said
        if lost:
            problems.append(f"{shard} has no {min(lost)}, which the index says that it holds")
        if more:
            problems.append(f"{shard} holds {min(more)}, which the index does not say")
    return problems + _missing(shards - set(headers), wanted)


def _missing(shards: Collection[str], wanted: Wanted) -> list[str]:
    chosen = [shard for shard in sorted(shards) if wanted(shard)]
    return [f"{shard} is missing, the index names it" for shard in chosen]


def _weight_map(text: bytes) -> Optional[dict[str, str]]:
    """Tensor to file; None where there is no such thing in it."""
    try:
        found = parsed(text)["weight_map"]
        return {str(name): str(file) for name, file in found.items()} or None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass
class Record:
    """files: name to size, mtime_ns, identity (of the source) and hash (of the content)."""

    target: Path
    origin: str = ""
    revision: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def untouched(self, name: str) -> bool:
        """Whether a file is still as it was when it was verified: its size and time."""
        entry = self.files.get(name)
        try:
            status = (self.target / name).stat()
        except OSError:
            return False
        now = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        return entry is not None and now.items() <= entry.items()

    def put(self, file: RemoteFile, found: str) -> None:
        """A file of the target is verified; found: its hash. On the disk at once."""
        with self.lock:
            self.note(file, found)
            self.write()

    def note(self, file: RemoteFile, found: str) -> None:
        """The same in memory; write stores it."""
        status = (self.target / file.name).stat()
        self.files[file.name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "identity": file.identity,
            "hash": found,
        }

    def of_source(self, listing: Listing) -> None:
        """Name the source that the folder has from now on."""
        self.origin, self.revision = listing.origin, listing.revision

    def write(self) -> None:
        """Store it."""
        data = {"origin": self.origin, "revision": self.revision, "files": self.files}
        folder = staging(self.target)
        folder.mkdir(parents=True, exist_ok=True)
        writing.write_atomically(folder / RECORD, json.dumps(data, indent=1) + "\n")


def read_record(target: Path) -> Record:
    """The record of a folder; an empty one when there is none, or none that can be used.

    Without a record nothing is lost: the files are read and compared again.
    """
    record = Record(target)
    try:
        data = parsed((staging(target) / RECORD).read_text(encoding="utf-8"))
        record.origin, record.revision = str(data["origin"]), str(data["revision"])
        for name, entry in data["files"].items():
            keys = ("size", "mtime_ns", "identity", "hash")
            record.files[str(name)] = {key: entry[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record(target)
    return record


@dataclass(frozen=True)
class Item:
    """One file and what is done with it. here: bytes of it that need no fetching."""

    file: RemoteFile
    action: str
    here: int = 0
    found: str = ""

    @property
    def to_do(self) -> bool:
        """Whether it is fetched."""
        return self.action in (FETCH, GO_ON, REPLACE)

    @property
    def missing(self) -> int:
        """Bytes that are to be fetched, as far as the source says sizes."""
        return max(0, (self.file.size or 0) - self.here) if self.to_do else 0


def part_of(target: Path, name: str) -> Path:
    """Where a file grows."""
    return staging(target) / f"{name}.incomplete"


def selected(
    listing: Listing, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[RemoteFile], list[RemoteFile]]:
    """The files that the patterns choose, and the others. Raises InputError: they choose none."""
    chosen: list[RemoteFile] = []
    others: list[RemoteFile] = []
    for file in sorted(listing.files, key=lambda one: one.name):
        (chosen if wanted(file.name, include, exclude) else others).append(file)
    if not chosen:
        raise InputError(
            f"the patterns choose none of its {len(listing.files)} files.",
            where=listing.origin,
            todo="mend weights.download.include and .exclude (--include, --exclude)",
        )
    return chosen, others


def wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the patterns choose a file."""
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """A pattern with a slash is of the whole path, one without also of the name alone."""
    last = name.rpartition("/")[2]
    return any(
        fnmatchcase(name, one) or ("/" not in one and fnmatchcase(last, one)) for one in patterns
    )


def compare(
    target: Path,
    listing: Listing,
    files: Sequence[RemoteFile],
    record: Record,
    *,
    verify: bool,
    replace: bool,
    threads: int,
    passed: Callable[[int], None],
) -> list[Item]:
    """What is to be done with each file. Reads files that no record vouches for, changes nothing.

    verify: reads all. passed: gets the bytes read; what it raises ends the comparison.
    Raises InputError: files are in the way that no earlier run has fetched.
    """
    ours = record.origin == listing.origin
    stopped = threading.Event()

    def read(count: int) -> None:
        if stopped.is_set():
            raise transfer.Stopped
        passed(count)

    def one(file: RemoteFile) -> Item:
        return _compare(target, file, record, ours, verify, replace, read)

    with ThreadPoolExecutor(threads) as pool:
        try:
            items = list(pool.map(one, files))
        except BaseException:
            stopped.set()  # Ctrl-C does not wait until the large files are read
            raise
    foreign = [item.file.name for item in items if item.action == FOREIGN]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        held = f" it holds {record.origin};" if record.origin and not ours else ""
        raise InputError(
            f"has other files of these names:{held} {', '.join(foreign[:3])}{more}.",
            where=str(target),
            todo="choose another --target, or replace them with --replace",
        )
    return items


def to_read(target: Path, files: Sequence[RemoteFile], record: Record, verify: bool) -> int:
    """Bytes that compare will read."""
    return sum(
        (target / file.name).stat().st_size
        for file in files
        if (target / file.name).is_file() and (verify or not _vouched(file, record))
    )


def _vouched(file: RemoteFile, record: Record) -> bool:
    entry = record.files.get(file.name)
    same = entry is not None and entry["identity"] == file.identity
    return same and record.untouched(file.name)


def _compare(
    target: Path,
    file: RemoteFile,
    record: Record,
    ours: bool,
    verify: bool,
    replace: bool,
    passed: Callable[[int], None],
) -> Item:
    path = target / file.name
    entry = record.files.get(file.name)
    here = transfer.kept(file, part_of(target, file.name))
    if not path.exists():
        return Item(file, GO_ON if here else FETCH, here)
    if not path.is_file():
        raise InputError("is no file.", where=str(path), todo="move it away")
    if not verify and entry and _vouched(file, record):
        return Item(file, UNCHANGED, found=entry["hash"])
    same_source = entry is not None and entry["identity"] == file.identity
    right: Optional[str] = file.hash or (entry["hash"] if entry and same_source else None)
    if right and file.size in (None, path.stat().st_size):
        found = of_file(path, right, passed)
        if found == right:
            return Item(file, UNCHANGED, found=found)
    if replace or (entry and ours and record.untouched(file.name)):
        return Item(file, REPLACE, here)
    if same_source:  # it was right, and is no more
        return Item(file, REPLACE if _damaged(path) else KEPT, here)
    return Item(file, FOREIGN)


def _damaged(path: Path) -> bool:
    """Whether a changed file is broken and not edited: nobody edits weights."""
    if path.suffix in WEIGHTS:
        return True
    try:
        text = regular.text(path)
        if path.suffix == ".json":
            json.loads(text)
    except (OSError, ValueError):
        return True
    return not text.strip()
