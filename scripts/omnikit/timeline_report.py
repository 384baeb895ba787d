"""Where the time of a recorded deployment went, for people and for programs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Sequence

from omnikit import timeline_trace, timeline_where
from omnikit.layers import shown_path
from omnikit.log import table
from omnikit.timeline_records import CUT_OFF, OK, Record


def ending(record: Record) -> str:
    """How it ended, in words."""
    if record.result == OK:
        return "ended well"
    if record.result == CUT_OFF:
        return "cut off: it was killed, or goes on still"
    said = record.error.splitlines()[0] if record.error else "it does not say why"
    return f"{record.result}: {said}"


def as_data(record: Record) -> dict[str, Any]:
    """Everything, times in seconds since the command began."""
    own = timeline_where.hosts(record)
    results = timeline_where.host_results(record)
    trace = timeline_trace.path_beside(record.path)
    return {
        "record": record.name,
        "file": str(record.path),
        "trace": str(trace) if trace.is_file() else None,
        "command": record.what,
        "owner": record.owner,
        "began": _moment(record.began),
        "seconds": round(record.seconds, 3),
        "result": record.result,
        "error": record.error or None,
        "waiting_for_engines_s": round(timeline_where.waiting(record), 3),
        "waiting_for_engines": _share(timeline_where.waiting(record), record.seconds),
        "steps": [_rounded(asdict(step)) for step in timeline_where.steps(record)],
        "hosts": {
            name: {
                "seconds": round(busy, 3),
                "waiting_for_engines_s": round(idle, 3),
                "result": results[name],
            }
            for name, (busy, idle) in own.items()
        },
        "critical_path": [_rounded(asdict(p)) for p in timeline_where.critical_path(record)],
        "spans": [_since(record, asdict(span)) for span in record.spans],
        "engines": [_since(record, asdict(engine)) for engine in record.engines],
    }


def _since(record: Record, one: dict[str, Any]) -> dict[str, Any]:
    moved = {key: one[key] - record.began for key in ("start", "end")}
    return _rounded({**one, **moved})


def _rounded(data: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in data.items()}


def _share(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole > 0 else 0.0


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "-"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def as_text(record: Record, environment: str, top: int) -> str:
    """The report. top: as many of the slowest steps and hosts."""
    total = record.seconds
    waited = timeline_where.waiting(record)
    parts = [
        f"{record.what} of {environment}, {_moment(record.began)}, by"
        f" {record.owner.split(':')[0]}: {total:.1f} s, {ending(record)}",
        *record.error.splitlines()[1:],
    ]
    if not record.spans:
        return "\n".join([*parts, "it ended before its first step."])
    parts.append(
        f"waiting for engines: {waited:.1f} s of {total:.1f} s ({_percent(waited, total)})"
    )
    parts += ["", _steps(record, top), "", _hosts(record, top), "", _path(record)]
    if record.engines:
        parts += ["", _engines(record, top)]
    trace = timeline_trace.path_beside(record.path)
    parts += ["", f"record: {shown_path(record.path)}"]
    if trace.is_file():
        parts.append(f"open it in Perfetto (ui.perfetto.dev): {shown_path(trace)}")
    else:
        parts.append("it has no trace yet; make one: invoke timeline --trace FILE")
    return "\n".join(parts)


def _more(found: Sequence[Any], shown: Sequence[Any]) -> str:
    left = len(found) - len(shown)
    return f"\nand {left} more, see --top" if left else ""


def _steps(record: Record, top: int) -> str:
    found = timeline_where.steps(record)
    # One that failed may have been quick: it is shown all the same.
    shown = [s for n, s in enumerate(found) if n < top or s.result != timeline_where.GOOD]
    rows = [
        [
            step.step,
            f"{step.seconds:.1f}",
            _percent(step.seconds, record.seconds),
            str(step.hosts),
            f"{step.slowest} {step.longest:.1f}" if step.hosts > 1 else step.slowest,
            f"{step.shortest:.1f}" if step.hosts > 1 else "-",
            step.result,
        ]
        for step in shown
    ]
    header = ["slowest steps", "seconds", "share", "hosts", "slowest host", "fastest", "result"]
    return table(rows, header) + _more(found, shown)


def _hosts(record: Record, top: int) -> str:
    found = sorted(timeline_where.hosts(record).items(), key=lambda one: -one[1][0])
    results = timeline_where.host_results(record)
    shown = [
        one for n, one in enumerate(found) if n < top or results[one[0]] != timeline_where.GOOD
    ]
    rows = [
        [name, f"{busy:.1f}", _percent(busy, record.seconds), f"{idle:.1f}", results[name]]
        for name, (busy, idle) in shown
    ]
    header = ["hosts", "seconds", "share", "of that waiting", "result"]
    return table(rows, header) + _more(found, shown)


def _path(record: Record) -> str:
    rows = [
        [f"{part.at:.1f}", f"{part.seconds:.1f}", part.host or "-", part.step]
        for part in timeline_where.critical_path(record)
    ]
    return table(rows, ["at s", "seconds", "host", "critical path: what the end waited for"])


def _engines(record: Record, top: int) -> str:
    found = sorted(record.engines, key=lambda one: one.start - one.end)
    shown = [e for n, e in enumerate(found) if n < top or e.result != "ready"]
    rows = [[e.node, f"{e.end - e.start:.1f}", e.host, e.result] for e in shown]
    return table(rows, ["engines", "seconds", "host", "state"]) + _more(found, shown)


def listing(records: Sequence[Record]) -> str:
    """A table of records, the newest first."""
    rows = [
        [
            record.name,
            record.what,
            f"{record.seconds:.1f}",
            _percent(timeline_where.waiting(record), record.seconds),
            record.owner.split(":")[0],
            ending(record)[:80],
        ]
        for record in records
    ]
    return table(rows, ["record", "command", "seconds", "waiting", "by", "end"])
