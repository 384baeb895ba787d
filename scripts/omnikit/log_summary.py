"""The index of fetched logs and its text: files, times, errors by kind and host. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from omnikit import causes
from omnikit.log import table
from omnikit.log_errors import Seen

_KINDS = 40  # kinds of error in the text; the index has all
_EXAMPLE = 160


class Errors:
    """Counts errors by kind and host."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, host: str, file: str, seen: Iterable[Seen]) -> None:
        """The errors of one file."""
        for one in seen:
            entry = self._found.setdefault(
                (one.kind, host),
                {
                    "kind": one.kind,
                    "name": one.name or None,
                    "host": host,
                    "count": 0,
                    "first": one.time,
                    "last": one.time,
                    "files": [],
                    "example": {"file": file, "line": one.line, "text": one.text},
                },
            )
            entry["count"] += 1
            if one.time is not None:
                if entry["first"] is None or one.time < entry["first"]:
                    entry["first"] = one.time
                    entry["example"] = {"file": file, "line": one.line, "text": one.text}
                entry["last"] = max(entry["last"] or one.time, one.time)
            if file not in entry["files"]:
                entry["files"].append(file)

    def as_data(self) -> list[dict[str, Any]]:
        """All kinds: the known first, then by the time of their first appearance."""
        return sorted(
            self._found.values(),
            key=lambda e: (e["name"] is None, e["first"] or "9", e["kind"], e["host"]),
        )


def as_text(index: Mapping[str, Any]) -> str:
    """summary.txt."""
    parts = [f"logs of {index['environment']}, fetched {index['fetched_at']}"]
    if index["since"]:
        parts[0] += f", of the last {index['since']}"
    failed = {host: h["error"] for host, h in index["hosts"].items() if h.get("error")}
    for host, error in failed.items():
        parts.append(f"NOT FETCHED from {host}: {error}")
    parts.append(_files(index["hosts"]))
    parts += _left_out(index["hosts"])
    parts.append(_errors(index["errors"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _files(hosts: Mapping[str, Any]) -> str:
    rows = []
    for host, about in hosts.items():
        for file in about.get("files", []):
            notes = []
            if file["cut_bytes"]:
                notes.append(f"its first {size(file['cut_bytes'])} were left out")
            if file["redacted_lines"]:
                notes.append(f"{file['redacted_lines']} lines with secrets redacted")
            rows.append(
                [
                    host,
                    file["path"],
                    size(file["bytes"]),
                    file["first"] or "-",
                    file["last"] or "-",
                    "; ".join(notes),
                ]
            )
    header = ["host", "file", "size", "first line", "last line", ""]
    return table(rows, header) if rows else "no log file was fetched"


def _left_out(hosts: Mapping[str, Any]) -> list[str]:
    found = []
    for host, about in hosts.items():
        by_reason: dict[str, list[str]] = {}
        for one in about.get("left_out", []):
            by_reason.setdefault(one["why"], []).append(one["path"])
        found += [
            f"left out on {host} ({why}): {', '.join(paths)}" for why, paths in by_reason.items()
        ]
    return found


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return "no errors were found"
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for one in errors:
        kinds.setdefault(one["kind"], []).append(one)
    lines = [f"errors by kind ({len(kinds)}), times as the logs say them:"]
    for kind, hosts in list(kinds.items())[:_KINDS]:
        lines += ["", kind if not hosts[0]["name"] else f"{kind}: {causes.entry(kind).cause}"]
        rows = [
            [f"  {e['host']}", f"{e['count']} x", e["first"] or "-", e["last"] or "-"]
            for e in hosts
        ]
        lines += table(rows, ["  host", "", "first", "last"]).splitlines()
        example = min(hosts, key=lambda e: e["first"] or "9")["example"]
        lines.append(f"  {example['file']}:{example['line']}: {example['text'].strip()[:_EXAMPLE]}")
        if hosts[0]["name"]:
            lines.append(f"  what to do: {causes.entry(kind).remedy}")
    if len(kinds) > _KINDS:
        lines += ["", f"and {len(kinds) - _KINDS} more kinds, all in index.json"]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
