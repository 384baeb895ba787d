"""Messages for people go to standard error; results go to standard output.

Names, logs and answers come from elsewhere: what in them would move a terminal's cursor, colour or
turn text, or hide it, is written out instead.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Callable, Iterable, Iterator, Sequence
from unicodedata import east_asian_width

_files: list[IO[str]] = []
_speakers: list[Callable[[str], str]] = []
# Colours are left out. The rest: controls but tab and newline (C0, DEL, C1), marks of direction and
# of line ends, what has no width, and bytes that are no text.
_UNSAFE = re.compile(
    "\x1b\\[[0-9;:]*m"
    "|[\0-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """Text as a terminal may get it; also valid in JSON and in YAML's quotes."""
    return _UNSAFE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    if len(found[0]) > 1:
        return ""
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def speak(said: Callable[[str], str]) -> None:
    """From now on, people are told what said makes of a text: it says it in their language."""
    _speakers[:] = [said]


def words(text: str) -> str:
    """A text in the language of whom it is for."""
    return _speakers[0](text) if _speakers else text


def speaks() -> bool:
    """Whether that language is another than English."""
    return bool(_speakers)


class _Shown:
    """A stream that gets text as a terminal may. data: a program reads it."""

    def __init__(self, under: Any) -> None:
        self.under, self.data = under, False

    def write(self, text: str) -> int:
        self.under.write(shown(text if self.data else words(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


@contextmanager
def for_people() -> Iterator[None]:
    """While this holds, nothing reaches standard output or error but as shown() has it."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):  # a terminal that knows fewer characters
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Shown(before[0]), _Shown(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def as_it_is() -> Iterator[None]:
    """While this holds, standard output is told in no other language."""
    stream = sys.stdout
    before = getattr(stream, "data", True)
    for_programs()
    try:
        yield
    finally:
        if isinstance(stream, _Shown):
            stream.data = before


def for_programs() -> None:
    """From now on, a program reads standard output."""
    if isinstance(sys.stdout, _Shown):
        sys.stdout.data = True


def give(text: str, end: str = "\n") -> None:
    """Print what are no words of ours, or what a program may read: files, commands, logs."""
    with as_it_is():
        print(text, end=end, flush=True)


def terminal() -> IO[str]:
    """Standard output for who moves the cursor there, and prints texts as shown() has them."""
    stream: IO[str] = getattr(sys.stdout, "under", sys.stdout)
    return stream


def say(message: str) -> None:
    """Print one line of progress to standard error, at once."""
    message = shown(message)
    for file in [sys.stderr, *_files]:
        try:
            print(message, file=file, flush=True)
        except BrokenPipeError:
            raise
        except OSError:  # a full disk takes no messages, and must stop nothing
            continue


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Whatever is said inside is also appended to this file."""
    with path.open("a", encoding="utf-8") as file:
        _files.append(file)
        try:
            yield
        finally:
            _files.remove(file)


def table(rows: list[list[str]], header: list[str]) -> str:
    """Rows of cells as aligned text columns. No colour: it reads the same in a file."""
    cells = [[words(cell) for cell in row] for row in [header, *rows]]
    widths = [max(_columns(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths)
        ).rstrip()
        for row in cells
    )


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(c) in "WF") for c in text)


def some(items: Sequence[str], most: int = 6, between: str = ", ") -> str:
    """A list for a person, shortened."""
    if len(items) <= most:
        return between.join(items)
    return f"{between.join(items[:most])} and {len(items) - most} more"


def size_text(count: float) -> str:
    """Bytes for people: 641.2 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
