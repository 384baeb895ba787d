"""Whether a vLLM has upstream's patches, and what in it is somebody's own work. Changes nothing.

The patches themselves say so: they are taken back in memory, the last one first, as they lie on one
another. That needs neither .git nor git, which a host's copy of the source does not have.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.log import some
from hostkit.source import git

Lines = list[bytes]  # each with its line ending, if it has one

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b'"': b'"', b"\\": b"\\"}
_ESCAPE = re.compile(rb'\\([0-7]{3}|[ntr"\\])')


@dataclass
class Hunk:
    """before, after: its lines in the file as it was and as it becomes; at: where those begin."""

    at: int
    before: Lines = field(default_factory=list)
    after: Lines = field(default_factory=list)
    trailing: int = 0  # lines of context at its end


@dataclass
class Change:
    """What a patch does to one file. before, after: its names; None where there is no file.

    opaque: git's binary form, which is not looked into. copied: what it is made from stays.
    """

    before: Optional[str]
    after: Optional[str]
    hunks: list[Hunk] = field(default_factory=list)
    opaque: bool = False
    copied: bool = False


def split(data: bytes) -> Lines:
    """The lines of a file; unlike splitlines, it is the line feed alone that ends one."""
    return [line for line in re.split(rb"(?<=\n)", data) if line]


def parse(data: bytes) -> list[Change]:
    """The changes of a patch; nothing where a text has none."""
    return [one for one in _Reader(split(data)).changes() if one.hunks or _moves(one)]


def _moves(one: Change) -> bool:
    return one.opaque or one.before != one.after


class _Reader:
    def __init__(self, lines: Lines) -> None:
        self._lines, self._next = lines, 0

    def changes(self) -> Iterator[Change]:
        now: Optional[Change] = None
        while self._next < len(self._lines):
            line = self._lines[self._next]
            self._next += 1
            if line.startswith(b"diff --git "):
                if now is not None:
                    yield now
                now = _header(line)
            elif line.startswith(b"--- ") and self._peek().startswith(b"+++ "):
                if now is None or now.hunks:  # a patch without git's own header
                    if now is not None:
                        yield now
                    now = Change(None, None)
                now.before, now.after = _name(line[4:]), _name(self._peek()[4:])
                self._next += 1
            elif now is not None:
                self._within(now, line)
        if now is not None:
            yield now

    def _within(self, now: Change, line: bytes) -> None:
        match = _HUNK.match(line)
        if match:
            now.hunks.append(self._hunk(match))
        elif now.hunks:
            return
        elif line.startswith(b"new file mode"):
            now.before = None
        elif line.startswith(b"deleted file mode"):
            now.after = None
        elif line.startswith((b"rename from ", b"copy from ")):
            now.before = _plain(line.split(b" from ", 1)[1])
        elif line.startswith((b"rename to ", b"copy to ")):
            now.after = _plain(line.split(b" to ", 1)[1])
            now.copied = line.startswith(b"copy")
        elif line.startswith((b"GIT binary patch", b"Binary files ")):
            now.opaque = True

    def _peek(self) -> bytes:
        return self._lines[self._next] if self._next < len(self._lines) else b""

    def _hunk(self, match: re.Match[bytes]) -> Hunk:
        olds, news = (int(match[n]) if match[n] is not None else 1 for n in (2, 4))
        made, last = Hunk(int(match[3])), b""
        while olds > 0 or news > 0 or self._peek().startswith(b"\\"):
            line = self._peek()
            if not line:
                break
            self._next += 1
            sign, text = line[:1], line[1:]
            if sign == b"\\":  # no newline at the end of the file: the line before lacks it
                for side in (made.before, made.after):
                    if side and side[-1] is last:
                        side[-1] = last.rstrip(b"\n")
                continue
            if sign == b"\n":  # some programs strip the space of an empty line
                sign, text = b" ", b"\n"
            last = text
            if sign in b" -":
                made.before.append(last)
                olds -= 1
            if sign in b" +":
                made.after.append(last)
                news -= 1
            made.trailing = made.trailing + 1 if sign == b" " else 0
        return made


def _header(line: bytes) -> Change:
    """The two names of a "diff --git" line, which are the same unless later lines say otherwise."""
    rest = line[len(b"diff --git ") :].rstrip(b"\r\n")
    if rest.startswith(b'"'):
        name = _name(rest[: rest.index(b'"', 1) + 1])
    else:  # "a/NAME b/NAME", and a name may have spaces
        name = _name(rest[: (len(rest) - 1) // 2])
    return Change(name, name)


def _name(text: bytes) -> Optional[str]:
    """A file's name in a header, without the a/ or b/ before it."""
    name = _plain(text.split(b"\t")[0])
    return None if name == "/dev/null" else name.partition("/")[2]


def _plain(text: bytes) -> str:
    text = text.rstrip(b"\r\n")
    if text.startswith(b'"') and text.endswith(b'"'):
        text = _ESCAPE.sub(
            lambda m: _ESCAPES.get(m[1]) or bytes([int(m[1], 8)]),
            text[1:-1],
        )
    return text.decode("utf-8", "surrogateescape")


def undo(change: Change, lines: Lines) -> Optional[Lines]:
    """What a file was before a change; None when the change is not in it.

    As git apply --reverse does it: a hunk may have moved, its lines must be there as they are.
    """
    found, done, moved = list(lines), 0, 0
    for hunk in change.hunks:
        place = _find(hunk, found, max(hunk.at - 1, 0) + moved, done)
        if place is None:
            return None
        found[place : place + len(hunk.after)] = hunk.before
        # Of the next hunk, the place says where it is in the file that all before it made.
        moved = place - max(hunk.at - 1, 0) + len(hunk.before) - len(hunk.after)
        done = place + len(hunk.before)
    return found


def _find(hunk: Hunk, lines: Lines, wanted: int, first: int) -> Optional[int]:
    size = len(hunk.after)
    last = len(lines) - size
    # git apply's own rules: such a hunk is at the beginning or the end of its file, nowhere else.
    if hunk.at <= 1:
        last = min(last, 0)
    if hunk.trailing == 0:
        first = max(first, len(lines) - size)
    places = sorted(range(first, last + 1), key=lambda place: abs(place - wanted))
    return next((one for one in places if lines[one : one + size] == hunk.after), None)


_LOOK_S = 600.0  # one look at a large clone on a slow disk
_SHOWN = 3


@dataclass(frozen=True)
class State:
    """names: of all patches, in order; missing: of those that are not applied. without: the files
    that they touch as they would be without them, None where there would be none.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    without: dict[str, Optional[bytes]] = field(repr=False)

    def lacks(self) -> str:
        """What is missing, as text."""
        shown = some(self.missing, _SHOWN)
        return f"{len(self.missing)} of {len(self.names)} patches of omni-infer: {shown}"


class _Files:
    """Files of a folder, with changes that are made in memory alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.now: dict[str, Optional[Lines]] = {}

    def get(self, name: Optional[str]) -> Optional[Lines]:
        if name is None:
            return None
        if name not in self.now:
            data = content(self._folder / name)
            self.now[name] = None if data is None else split(data)
        return self.now[name]


def look(vllm: Path, patches: Sequence[Path]) -> State:
    """What a vLLM has of these patches. Raises InputError where a patch cannot be read."""
    files = _Files(vllm)
    missing = []
    for patch in reversed(patches):
        try:
            changes = parse(patch.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"this patch cannot be read: {error}.", where=str(patch)) from error
        before = dict(files.now)
        if not all(_undone(change, files) for change in reversed(changes)):
            files.now = before
            missing.append(patch.name)
    without = {
        name: None if lines is None else b"".join(lines) for name, lines in files.now.items()
    }
    return State(tuple(one.name for one in patches), tuple(reversed(missing)), without)


def _undone(change: Change, files: _Files) -> bool:
    """Take one change back; whether it was there."""
    if change.opaque:
        return True
    moved = change.after != change.before and not change.copied
    if moved and change.before is not None and files.get(change.before) is not None:
        return False  # there already is what taking it back would bring
    there = files.get(change.after) if change.after is not None else []
    was = None if there is None else undo(change, there)
    if was is None or (change.before is None and was):
        return False
    if change.after is not None and change.after != change.before:
        files.now[change.after] = None
    if change.before is not None and not change.copied:
        files.now[change.before] = was
    return True


def edits(vllm: Path, state: State) -> list[str]:
    """Files of a clone that differ from its commit by more than the patches: somebody's own work.

    What git ignores does not count. Raises ActionError when git cannot say.
    """
    said = git.ask(
        *(vllm, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"),
        timeout_s=_LOOK_S,
    )
    paths = [entry[3:] for entry in git.entries(said)]
    # A clone in the clone ends with a slash: neither reset nor clean touches it.
    paths = [path for path in paths if not path.endswith("/")]
    if not paths:
        return []
    tree = git.ask(vllm, "ls-tree", "-r", "-z", "HEAD", timeout_s=_LOOK_S)
    rows = [entry.partition("\t") for entry in git.entries(tree)]
    known = {path: line.split()[2] for line, _, path in rows}

    def own(path: str) -> Optional[str]:
        data = state.without[path] if path in state.without else content(vllm / path)
        return None if data is None else _blob(data, len(known.get(path, "")))

    return [path for path in paths if own(path) != known.get(path)]


def _blob(data: bytes, size: int) -> str:
    """The name that git gives to a content, in a repository whose names have that size."""
    made = hashlib.sha256() if size == hashlib.sha256().digest_size * 2 else hashlib.sha1()
    made.update(b"blob %d\0" % len(data) + data)
    return made.hexdigest()


def content(path: Path) -> Optional[bytes]:
    """What git keeps of a path; None where nothing is, or a folder."""
    if path.is_symlink():
        return os.fsencode(os.readlink(path))  # noqa: PTH115 (3.9 on)
    return path.read_bytes() if path.is_file() else None
