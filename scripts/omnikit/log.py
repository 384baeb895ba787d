"""Messages for people go to standard error; results go to standard output.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

_files: list[IO[str]] = []


def say(message: str) -> None:
    """Print one line of progress to standard error, at once."""
    print(message, file=sys.stderr, flush=True)
    for file in _files:
        print(message, file=file, flush=True)


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
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    )
