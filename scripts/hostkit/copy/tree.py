"""A tree of source files as data: what is in it, what is left out, and how two of them differ.

Used on both ends of a copy, so both mean the same by an excluded file. Paths are bytes on the disk
and text here: what is not UTF-8 survives as surrogates.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import re
import stat
import time
import zlib
from dataclasses import dataclass
from typing import Iterator, NamedTuple, Optional, Sequence

from hostkit.files import regular

FILE, FOLDER, LINK = "f", "d", "l"
# Never part of a tree: the toolkit's records at its top, and rsync's unfinished files.
OURS, UNFINISHED = ".omnikit-code.", ".~tmp~"
# A file's times move in ticks of the kernel's clock: one that was written this short ago may be
# written again without a trace.
_RACY_NS = 100_000_000


class Entry(NamedTuple):
    """A file, folder or link. content: a file's check sum, a link's target. mtime in ns."""

    kind: str
    mode: int
    size: int
    mtime: int
    content: str


Manifest = dict[str, Entry]
# By path: size, mtime and ctime in ns, inode, check sum of a file when it was read last.
Index = dict[str, list[object]]


@dataclass(frozen=True)
class Tree:
    """What a walk found. index: for the next walk; others: sockets, pipes, devices; bytes: read."""

    files: Manifest
    index: Index
    others: tuple[str, ...] = ()
    read: int = 0


@dataclass(frozen=True)
class Changes:
    """How to make one tree from another. delete: deepest first; blocked: folders in the way."""

    create: tuple[str, ...]
    update: tuple[str, ...]
    mode: tuple[str, ...]
    delete: tuple[str, ...]
    blocked: tuple[str, ...] = ()

    @property
    def send(self) -> tuple[str, ...]:
        """What has to be transferred, folders before what is in them."""
        return tuple(sorted({*self.create, *self.update, *self.mode}))

    @property
    def all(self) -> tuple[str, ...]:
        """Every path that differs."""
        return tuple(sorted({*self.send, *self.delete}))


class Excludes:
    """Patterns of what is left out: NAME, NAME/ (folders only), A/B (its end), /A/B (from the top).

    *, ? and [ab] stand for any characters but /. Raises ValueError for any other pattern.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        names: dict[bool, list[str]] = {False: [], True: []}
        self._paths: list[tuple[bool, bool, list[re.Pattern[str]]]] = []
        for pattern in patterns:
            parts = pattern.strip("/").split("/")
            if "\\" in pattern or "**" in pattern or not {"", ".", ".."}.isdisjoint(parts):
                raise ValueError(
                    f"{pattern!r} cannot be used: expected NAME, NAME/, A/B or /A/B, where *, ?"
                    " and [ab] stand for any characters but /"
                )
            folders, top = pattern.endswith("/"), pattern.startswith("/")
            if len(parts) == 1 and not top:
                names[folders].append(fnmatch.translate(parts[0]))
            else:
                made = [re.compile(fnmatch.translate(part)) for part in parts]
                self._paths.append((folders, top, made))
        # Most names end no path pattern: one look tells.
        self._ends = re.compile("|".join(made[-1].pattern for _, _, made in self._paths) or r"(?!)")
        self._any = re.compile("|".join(names[False]) or r"(?!)")
        self._folder = re.compile("|".join([*names[False], *names[True]]) or r"(?!)")

    def match(self, path: str, folder: bool) -> bool:
        """Whether this path itself is left out; what is below it goes with it."""
        name = path.rpartition("/")[2]
        if (folder and name == UNFINISHED) or path.startswith(OURS):
            return True
        if (self._folder if folder else self._any).match(name):
            return True
        if not self._ends.match(name):
            return False
        parts = path.split("/")
        for folders, top, made in self._paths:
            if (
                (folders and not folder)
                or len(parts) < len(made)
                or (top and len(parts) > len(made))
            ):
                continue
            if all(one.match(part) for one, part in zip(made, parts[-len(made) :])):
                return True
        return False


def text(path: bytes) -> str:
    """A path of the disk as text, whatever the locale is."""
    return path.decode("utf-8", "surrogateescape")


def raw(path: str) -> bytes:
    """The reverse of text."""
    return path.encode("utf-8", "surrogateescape")


def shown(path: str) -> str:
    """A path for a message: nothing in it can act on a terminal or end a line."""
    decoded = raw(path).decode("utf-8", "backslashreplace")
    return decoded if decoded.isprintable() else ascii(decoded)[1:-1]


def walk(
    top: str,
    excludes: Excludes,
    index: Optional[Index] = None,
    sent: Optional[Manifest] = None,
) -> Tree:
    """What is in a folder.

    index: of an earlier walk; a file that looks as it did then is not read again, None: all are
    read. sent: files that rsync has just brought and checked; with equal size and time they are
    taken as what they should be. Raises OSError for what cannot be read.
    """
    known, trusted = index or {}, sent or {}
    files: Manifest = {}
    made: Index = {}
    others: list[str] = []
    read = 0
    now = time.time_ns()
    for path, place, status in _below(raw(top), excludes):
        mode, mtime = stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns
        if stat.S_ISDIR(status.st_mode):
            files[path] = Entry(FOLDER, mode, 0, 0, "")
        elif stat.S_ISLNK(status.st_mode):
            files[path] = Entry(LINK, 0, 0, 0, text(os.readlink(place)))  # noqa: PTH115
        elif stat.S_ISREG(status.st_mode):
            seen = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            there, want = known.get(path), trusted.get(path)
            if there is not None and there[:4] == seen:
                content = str(there[4])
            elif want is not None and want[0] == FILE and want[2:4] == (status.st_size, mtime):
                content = want.content
            else:
                content = checksum(place)
                read += status.st_size
            files[path] = Entry(FILE, mode, status.st_size, mtime, content)
            if now - status.st_ctime_ns > _RACY_NS:
                made[path] = [*seen, content]
        else:
            others.append(path)
    return Tree(files, made, tuple(sorted(others)), read)


def _below(top: bytes, excludes: Excludes) -> Iterator[tuple[str, bytes, os.stat_result]]:
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(top, folder)) as found:  # noqa: PTH118 (paths are bytes)
            for entry in found:
                inside = folder + b"/" + entry.name if folder else entry.name
                path = text(inside)
                is_folder = entry.is_dir(follow_symlinks=False)
                if excludes.match(path, is_folder):
                    continue
                try:
                    yield path, entry.path, entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # gone meanwhile
                    continue
                if is_folder:
                    pending.append(inside)


def checksum(path: bytes) -> str:
    """Of a file's content, 32 hex digits."""
    return regular.sha256(path)[:32]


def digest(files: Manifest) -> str:
    """One check sum over paths, kinds, modes and contents; times do not count."""
    made = hashlib.sha256()
    for path in sorted(files):
        one = files[path]
        made.update(b"%s\0%s\0%o\0%s\0" % (raw(path), raw(one.kind), one.mode, raw(one.content)))
    return made.hexdigest()[:32]


def compare(wanted: Manifest, found: Manifest) -> Changes:
    """What makes found equal to wanted."""
    create, update, mode, blocked = [], [], [], []
    for path, want in wanted.items():
        have = found.get(path)
        if have is None or have.kind != want.kind:
            create.append(path)
            if have is not None and have.kind == FOLDER:
                blocked.append(path)
        elif have.content != want.content:
            update.append(path)
        elif have.mode != want.mode:
            mode.append(path)
    delete = sorted(found.keys() - wanted.keys(), key=lambda path: (-path.count("/"), path))
    return Changes(
        create=tuple(sorted(create)),
        update=tuple(sorted(update)),
        mode=tuple(sorted(mode)),
        delete=tuple(delete),
        blocked=tuple(sorted(blocked)),
    )


def pack(files: Manifest) -> str:
    """A manifest as one word of text."""
    return base64.b64encode(zlib.compress(json.dumps(files).encode(), 3)).decode()


def unpack(word: str) -> Manifest:
    """The reverse of pack."""
    return from_json(json.loads(zlib.decompress(base64.b64decode(word))))


def from_json(data: dict[str, list[object]]) -> Manifest:
    """A manifest that was written as JSON."""
    return {path: Entry(*one) for path, one in data.items()}  # type: ignore[arg-type]
