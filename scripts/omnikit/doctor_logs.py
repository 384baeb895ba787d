"""What the end of a server's log says about why it died or does not get ready. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

from omnikit import causes, log_errors
from omnikit.doctor_findings import LIKELY, POSSIBLE, UNKNOWN, Finding, known

_LAST = 15  # lines of a log that are shown where nothing is known
_WIDTH = 300
# Entries that say that something further up is the cause.
_FOLLOWS = ("engine-died", "engine-ended", "npu-timeout", "kv-link")


def explain(on: str, server: Mapping[str, Any], how: str, certainty: str = LIKELY) -> list[Finding]:
    """Findings for a server with a log end: known failures, else what can be said without one.

    how: how it ended, or what it does.
    """
    lines, first, path = _log(server)
    source = log_errors.source_of(path)
    found = causes.matches([*lines, how], source)
    roots = [match for match in found if match.cause.name not in _FOLLOWS] or found
    if not roots:
        return [_unknown(on, server, how)]
    findings = []
    for number, match in enumerate(roots[:3]):
        evidence = [f"{path}:{first + match.index}: {_short(match.line)}"]
        if match.index >= len(lines):
            evidence = []
        findings.append(
            known(match.cause.name, certainty if number == 0 else POSSIBLE, on, *evidence, how)
        )
    return findings


def mentions(on: str, server: Mapping[str, Any], certainty: str = POSSIBLE) -> list[Finding]:
    """Known failures in the log of a server that runs; nothing when there are none."""
    lines, first, path = _log(server)
    return [
        known(m.cause.name, certainty, on, f"{path}:{first + m.index}: {_short(m.line)}")
        for m in causes.matches(lines, log_errors.source_of(path))
        if m.cause.name not in ("engine-ended",)
    ][:3]


def last_error(server: Mapping[str, Any]) -> Optional[str]:
    """The last line that is an error, with its place."""
    lines, first, path = _log(server)
    for number in range(len(lines) - 1, -1, -1):
        if log_errors.unknown(lines[number]):
            return f"{path}:{first + number}: {_short(lines[number])}"
    return None


def _log(server: Mapping[str, Any]) -> tuple[Sequence[str], int, str]:
    end = server.get("log_end") or {}
    return end.get("lines", []), end.get("first_line", 1), str(server["log"])


def _unknown(on: str, server: Mapping[str, Any], how: str) -> Finding:
    lines, _, path = _log(server)
    evidence = [how]
    missing = (server.get("log_end") or {}).get("missing")
    if missing:
        evidence.append(f"{path} cannot be read: {missing}")
    last = last_error(server)
    if last:
        evidence.append(last)
    instance = str(server["name"]).partition(".")[0]
    return Finding(
        "unknown",
        UNKNOWN,
        (on,),
        "The cause is not known: no known failure is in its log.",
        tuple(evidence),
        f"read its log: invoke logs --instance {instance} --lines 200; keep all: invoke fetch-logs",
        tuple(_short(line) for line in lines[-_LAST:]),
    )


def _short(line: str) -> str:
    line = line.strip().replace("\r", " ")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
