"""Unified diffs as git writes and applies them, read and taken back in memory. Pure.

Standard library only: this module runs on the hosts, where a source has no .git and often no git.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterator, Optional

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
