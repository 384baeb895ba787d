"""Errors in log lines: known ones by name, others by their words without what varies. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Iterable, Optional

from hostkit.logs.files import stamp
from omnikit.fleet import causes

_LONGEST = 2000  # characters of a line that are looked at
_KIND = 90  # characters of an unknown error's words
_PROCESS = re.compile(r"^(?:\s*\([\w. =,-]*\bpid=\d+[^)]*\))+\s*|^\s*\[rank\d+\]:\s*")
_LEVEL = re.compile(
    r"^(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\]|\S+:\d+\])\s?"  # vLLM
    r"|^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?:error|crit|alert|emerg)\] \d+#\d+: (?:\*\d+ )?"  # nginx
    r"|^nginx: \[(?:emerg|alert)\] "
    r"|^\[(?:ERROR|CRITICAL)\] \w+\([^)]*\):[\d.:-]+ (?:\[[^\]]*\]\s*)*"  # Ascend
    r"|^\d{4}-\d\d-\d\d[ T][\d:,.]+\s+(?:\S+ )?(?:- )?(?:ERROR|CRITICAL)\b[ :-]*"  # Python
    r"|^\[\d{4}-\d\d-\d\d [\d:,.]+ [EF] [\d ]*\] "  # Ray
    r"|^\[E\d{4,} [\d:.]+ [^\]]*\] "  # glog
    r"|^(?:ERROR|CRITICAL|FATAL)[: -]+|^error: "
)
_EXCEPTION = re.compile(
    r"^((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Expired|Timeout))(?::\s*(.*))?$"
)
_CRASH = re.compile(r"^(?:Fatal Python error|Segmentation fault|Bus error|Killed$|Aborted$)")
_FRAME = re.compile(r"^(?:\s|Traceback \(|File \"|[~^]+$|During handling|The above exception|$)")
_VARIES = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b(?:cmpl|chatcmpl|req|request)-[\w-]+"), "ID"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"), "ADDRESS"),
    (re.compile(r"\[?\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}\b\]?(?::\d+)?"), "ADDRESS"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "N"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b"), "ID"),
    (re.compile(r"\d+(?:\.\d+)?"), "N"),
)


@dataclass(frozen=True)
class Seen:
    """An error in a line. name: of the catalogue, "" for one that is not known."""

    kind: str
    name: str
    line: int
    text: str
    time: Optional[str]


def source_of(file: str) -> str:
    """The catalogue's source of a log file."""
    name = re.sub(r"(\.log)\.\d+$", r"\1", file.rpartition("/")[2])  # also of those put aside
    if name.startswith("launcher"):
        return "launcher"
    return "proxy" if name.endswith(("proxy.log", "error.log", "access.log")) else "server"


def scan(
    lines: Iterable[str], source: str, latest: datetime, since: Optional[str] = None
) -> tuple[list[Seen], Optional[str], Optional[str]]:
    """All errors, and the first and the last time that a line says.

    latest: when the file was last written. since: errors before this time (YYYY-MM-DDTHH:MM:SS) do
    not count.
    """
    found: list[Seen] = []
    first: Optional[str] = None
    last: Optional[str] = None
    for number, line in enumerate(lines, 1):
        short = line[:_LONGEST].rstrip()
        time = stamp(short, latest)
        if time is not None:
            first, last = first or time, time
        if since is not None and last is not None and last < since:
            continue
        seen = of_line(short, source)
        if seen is not None:
            kind, name = seen
            found.append(Seen(kind, name, number, short, time or last))
    return found, first, last


def of_line(line: str, source: str) -> Optional[tuple[str, str]]:
    """The kind of error that a line is, and its name in the catalogue; None when it is none."""
    known = causes.of_line(line, source)
    if known is not None:
        return known.name, known.name
    said = unknown(line)
    return (said, "") if said else None


def unknown(line: str) -> str:
    """The words of an error that nobody knows, "" where a line is no error."""
    bare = _PROCESS.sub("", line)
    marked = _LEVEL.match(bare)
    message = bare[marked.end() :] if marked else bare
    exception = _EXCEPTION.match(message)
    if exception:
        name = exception.group(1).rpartition(".")[2]
        words = exception.group(2) or ""
        return normal(f"{name}: {words}" if words else name)
    if _CRASH.match(message):
        return normal(message)
    if not marked or _FRAME.match(message):
        return ""  # an ordinary line, or a line of a traceback, whose last line counts
    return normal(message)


def normal(text: str) -> str:
    """An error's words with numbers, addresses and ids replaced, so that equal ones are equal."""
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= _KIND else text[: _KIND - 1] + "…"
