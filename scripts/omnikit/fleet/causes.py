"""Likely causes of what a log or an observation says, from the catalogue configs/failures.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional, Pattern, Sequence

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
    if not _any(source).search(line):
        return None
    return next((cause for cause, pattern in _compiled(source) if pattern.search(line)), None)


def matches(lines: Sequence[str], source: Optional[str] = None) -> list[Match]:
    """All known failures that these lines show, in the catalogue's order, each once."""
    hits = [(i, line) for i, line in enumerate(lines) if _any(source).search(line)]
    found = []
    for cause, pattern in _compiled(source):
        first = next(((i, line) for i, line in hits if pattern.search(line)), None)
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
