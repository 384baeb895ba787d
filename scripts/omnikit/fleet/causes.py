"""Likely causes of what a log or an observation says, from the catalogue configs/failures.yaml; and
errors in logs: known ones by their name there, others by their words without what varies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Iterable, Optional, Pattern, Sequence

from hostkit.logs.files import stamp
from omnikit.config.layers import PROJECT

# Where a line may stand: logs of servers, of their launcher, of the proxy; what the toolkit saw.
SOURCES = ("server", "launcher", "proxy", "status", "check")


@dataclass(frozen=True)
class Cause:
    """One entry of the catalogue. where: the sources that it is for; none means all."""

    name: str
    pattern: str
    cause: str
    remedy: str
    where: tuple[str, ...] = ()

    def fits(self, source: Optional[str]) -> bool:
        """Whether a line of this source can show it; None: a line of anywhere."""
        return source is None or not self.where or source in self.where


@dataclass(frozen=True)
class Match:
    """A known failure in some lines, and the first line that shows it."""

    cause: Cause
    index: int
    line: str


# Characters of a line that are looked at: for some patterns the time grows with the square of them.
_LONGEST = 2000


@cache
def catalogue() -> tuple[Cause, ...]:
    """All known failures, in order."""
    import yaml

    text = (PROJECT / "configs" / "failures.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    return tuple(Cause(**{**entry, "where": tuple(entry.get("where", ()))}) for entry in entries)


def entry(name: str) -> Cause:
    """A known failure by its name."""
    return next(cause for cause in catalogue() if cause.name == name)


@cache
def _compiled(source: Optional[str]) -> tuple[tuple[Cause, Pattern[str]], ...]:
    return tuple((c, re.compile(c.pattern)) for c in catalogue() if c.fits(source))


@cache
def _any(source: Optional[str]) -> Pattern[str]:
    """Any of the patterns at once: one search rules a line out."""
    return re.compile("|".join(f"(?:{cause.pattern})" for cause, _ in _compiled(source)))


def of_line(line: str, source: Optional[str] = None) -> Optional[Cause]:
    """The first known failure that one line shows."""
    line = line[:_LONGEST]
    if not _any(source).search(line):
        return None
    return next((cause for cause, pattern in _compiled(source) if pattern.search(line)), None)


def matches(lines: Sequence[str], source: Optional[str] = None) -> list[Match]:
    """All known failures that these lines show, in the catalogue's order, each once."""
    hits = [(i, line) for i, line in enumerate(lines) if _any(source).search(line[:_LONGEST])]
    found = []
    for cause, pattern in _compiled(source):
        first = next(((i, line) for i, line in hits if pattern.search(line[:_LONGEST])), None)
        if first is not None:
            found.append(Match(cause, *first))
    return found


def likely_cause(lines: Sequence[str], source: Optional[str] = None) -> Optional[Cause]:
    """The first known failure that these log lines show."""
    found = matches(lines, source)
    return found[0].cause if found else None


def describe(node: dict[str, Any], tail_lines: int) -> str:
    """A failed node for a person: which server, how it ended, its last lines, why, what to do."""
    parts = []
    for server in node["servers"]:
        if server["state"] != "failed":
            continue
        end = server.get("exit")
        how = f"ended with exit status {end}" if end is not None else "does not run any more"
        if node.get("reason"):
            how = node["reason"]
        if server.get("reason"):
            how = server["reason"]
        lines = server.get("tail") or []
        parts.append(f"{server['name']} {how}. Its last lines ({server['log']}):")
        parts.extend(f"    {line}" for line in lines[-tail_lines:])
        cause = likely_cause([*lines, how, f"exit status {end}"])
        if cause is not None:
            parts.append(f"  Likely cause: {cause.cause}\n  What to do: {cause.remedy}")
        break  # the others were ended because of the first
    if not parts and node.get("reason"):
        log = node["servers"][0]["log"] if node["servers"] else ""
        parts.append(f"{node['node']}: {node['reason']} (log: {log})")
    return "\n".join(parts) or f"{node['node']} failed."


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
        seen = kind_of(short, source)
        if seen is not None:
            kind, name = seen
            found.append(Seen(kind, name, number, short, time or last))
    return found, first, last


def kind_of(line: str, source: str) -> Optional[tuple[str, str]]:
    """The kind of error that a line is, and its name in the catalogue; None when it is none."""
    known = of_line(line, source)
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
