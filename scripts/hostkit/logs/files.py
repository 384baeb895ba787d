"""The log files of this host's nodes: which there are, and one copied without its secrets.

Links are never followed out of a log folder: they are left out, whatever they point to.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Mapping, Optional, Sequence

from hostkit.base.redact import Redactor

TOO_MUCH = "with it there would be too much"
_LONGEST = 1 << 20  # of a longer line the rest is left out
_LOOKED_AT = 8192  # bytes in which a file that is not text shows


@dataclass(frozen=True)
class LogFile:
    """instance/inside: its place in the archive. size and modified: when it was listed."""

    instance: str
    inside: str
    path: Path
    size: int
    modified: float


def folders(
    deployed: Mapping[str, Any], planned: Mapping[str, str], only: Optional[Sequence[str]]
) -> dict[str, Path]:
    """Log folders by instance: those of what was deployed, else those that are planned."""
    found = {**planned, **{node["name"]: node["log_dir"] for node in deployed.get("nodes", [])}}
    return {name: Path(path) for name, path in found.items() if only is None or name in only}


def listing(
    folders: Mapping[str, Path], since_s: Optional[float]
) -> tuple[list[LogFile], list[dict[str, str]]]:
    """All log files, and what was left out with the reason; each file once.

    since_s: files that were not written in so many last seconds are left out.
    """
    found: list[LogFile] = []
    left_out: list[dict[str, str]] = []
    seen: set[tuple[int, int]] = set()
    # The deepest first: a folder inside another one belongs to its own instance.
    for instance, root in sorted(folders.items(), key=lambda item: -len(item[1].parts)):
        if not root.is_dir():
            left_out.append({"path": str(root), "why": "there is no such folder"})
            continue
        for folder, below, names in os.walk(root.resolve()):
            below.sort()
            for name in sorted(names):
                path = Path(folder) / name
                why, about = _reason(path, since_s)
                if about is not None and (about.st_dev, about.st_ino) in seen:
                    continue
                if about is not None:
                    seen.add((about.st_dev, about.st_ino))
                if why or about is None:
                    left_out.append({"path": str(path), "why": why})
                    continue
                inside = str(path.relative_to(root.resolve()))
                found.append(LogFile(instance, inside, path, about.st_size, about.st_mtime))
            for name in below:
                if (Path(folder) / name).is_symlink():
                    left_out.append({"path": str(Path(folder) / name), "why": "a link"})
    return sorted(found, key=lambda f: (f.instance, f.inside)), left_out


def newest(
    files: Sequence[LogFile], max_file_bytes: Optional[int], max_bytes: Optional[int]
) -> tuple[list[LogFile], list[dict[str, str]]]:
    """The newest files that have so many bytes together, and what was left out."""
    if not max_bytes:
        return list(files), []
    kept, left_out, left = set(), [], max_bytes
    for file in sorted(files, key=lambda one: -one.modified):
        needs = min(file.size, max_file_bytes or file.size)
        if needs <= left:
            kept.add(file)
            left -= needs
        else:
            left_out.append({"path": str(file.path), "why": TOO_MUCH})
    return [file for file in files if file in kept], left_out


def _reason(path: Path, since_s: Optional[float]) -> tuple[str, Optional[os.stat_result]]:
    """Why a file is left out, "" when it is not."""
    try:
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            return "a link", None
        if not stat.S_ISREG(about.st_mode):
            return "not a file", None
        if since_s is not None and about.st_mtime < time.time() - since_s:
            return "not written since then", about
        with _open(path) as file:
            if b"\0" in file.read(_LOOKED_AT):
                return "not text", about
    except OSError as error:
        return str(error.strerror), None
    return "", about


def _open(path: Path) -> IO[bytes]:
    """Open a file that is no link, whatever became of it since it was looked at."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def copy(
    file: LogFile,
    into: IO[bytes],
    redactor: Redactor,
    since_s: Optional[float],
    max_bytes: Optional[int],
) -> int:
    """Copy what a log had when it was listed, redacted; returns the bytes left out at its front.

    A file that was cut begins with a line that says so.
    """
    with _open(file.path) as source:
        start = 0
        if since_s is not None:
            start = _first_since(source, file, time.time() - since_s)
        if max_bytes and file.size - start > max_bytes:
            start = _next_line(source, file.size - max_bytes)
        if start:
            into.write(
                f"[omnikit: the first {start} of {file.size} bytes were left out]\n".encode()
            )
        source.seek(start)
        left = file.size - start
        while left > 0:
            line = source.readline(min(left, _LONGEST))
            if not line:
                break  # it was shortened meanwhile
            left -= len(line)
            text = redactor.line(line.decode("utf-8", "surrogateescape"))
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                dropped = _drop_rest(source, left)
                left -= dropped
                text += f" [omnikit: {dropped} more bytes of this line were left out]\n"
            into.write(text.encode("utf-8", "surrogateescape"))
    return start


def _drop_rest(source: IO[bytes], left: int) -> int:
    """Skip the rest of a line; returns its length."""
    dropped = 0
    while dropped < left:
        part = source.readline(min(left - dropped, _LONGEST))
        dropped += len(part)
        if not part or part.endswith(b"\n"):
            break
    return dropped


def _next_line(source: IO[bytes], offset: int) -> int:
    """Where the first whole line after an offset begins."""
    source.seek(max(0, offset - 1))
    source.readline(_LONGEST)
    return source.tell()


def _first_since(source: IO[bytes], file: LogFile, since: float) -> int:
    """Where the first line of the wanted time begins.

    0, all of it, when no line says such a time: the file was written since then, so its clock or
    time zone is another one, or its lines have no times.
    """
    latest = datetime.fromtimestamp(file.modified)
    wanted = datetime.fromtimestamp(since).isoformat(timespec="seconds")
    offset = 0
    for line in iter(lambda: source.readline(_LONGEST), b""):
        found = stamp(line.decode("utf-8", "replace"), latest)
        if found is not None and found >= wanted:
            return offset
        offset += len(line)
    return 0


_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: f"{number:02}" for number, name in enumerate(_NAMES, 1)}
_CLOCK = r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)"
# Python's logging, nginx' error log, JSON lines, Ascend's plog: all with a year.
_FULL = re.compile(rf"\b(20\d\d)[-/](0\d|1[0-2])[-/]([0-3]\d)[-T ]{_CLOCK}")
# vLLM: "INFO 11-23 09:58:33 [model.py:733]"; no year.
_VLLM = re.compile(rf"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (0\d|1[0-2])-([0-3]\d) {_CLOCK}")
# PyTorch and Ray (glog): "[W1123 09:58:52.434912737 utils.cpp:41]"; no year.
_GLOG = re.compile(rf"(?:^|\[)[IWEFC](0\d|1[0-2])([0-3]\d) {_CLOCK}")
# nginx' access log: "[23/Nov/2026:09:59:22 +0000]".
_ACCESS = re.compile(rf"\b([0-3]\d)/({'|'.join(_MONTHS)})/(20\d\d):{_CLOCK}")
_SEARCHED = 120  # a line says its time at its beginning


def stamp(line: str, latest: datetime) -> Optional[str]:
    """The line's time as YYYY-MM-DDTHH:MM:SS, which sorts; None when it says none.

    latest: when the file was last written; the year of lines that have none follows from it.
    """
    head = line[:_SEARCHED]
    found = _FULL.search(head)
    if found:
        year, month, day, *clock = found.groups()
        return f"{year}-{month}-{day}T{':'.join(clock)}"
    found = _VLLM.search(head) or _GLOG.search(head)
    if found:
        month, day, *clock = found.groups()
        # One day of grace: clocks and time zones of host and container may differ.
        later = (int(month), int(day)) > (latest.month, latest.day + 1)
        return f"{latest.year - later}-{month}-{day}T{':'.join(clock)}"
    found = _ACCESS.search(head)
    if found:
        day, name, year, *clock = found.groups()
        return f"{year}-{_MONTHS[name]}-{day}T{':'.join(clock)}"
    return None
