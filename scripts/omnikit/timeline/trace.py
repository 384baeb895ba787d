"""A recorded deployment as a trace that Perfetto and chrome://tracing open.

The format is Chrome's "Trace Event Format": complete events (ph X) with ts and dur in microseconds,
a process for each host, and in it a thread for its steps and one for each of its servers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

from hostkit.base.errors import InputError
from hostkit.files.result_file import written
from omnikit.timeline.progress import Span
from omnikit.timeline.records import Engine, Record, read

_STEPS = 1  # the thread of a host's steps; more where they overlap
_ENGINES = 100


def path_beside(record: Path) -> Path:
    """The trace that belongs to a record: the same name, .trace.json."""
    return record.with_name(f"{record.stem}.trace.json")


def write_beside(record: Path) -> None:
    """Write the trace of a record that has just ended. A record that is none is left alone."""
    try:
        found = read(record)
    except InputError:
        return
    write(found, path_beside(record))


def write(record: Record, path: Path) -> None:
    """Write a record's trace, whole. Raises OSError."""
    with written(path) as beside:
        beside.write_text(json.dumps(trace(record), indent=1) + "\n", encoding="utf-8")


def write_to(record: Record, path: Path) -> None:
    """The same for a path that a user gave (see out_file). Raises InputError."""
    try:
        write(record, path)
    except OSError as error:
        raise InputError(
            f"the trace cannot be written: {error.strerror}.",
            where=f"--trace {path}",
            todo="choose another place",
        ) from error


def trace(record: Record) -> dict[str, Any]:
    """The trace as data. Times count from the moment when the command began."""
    spans, engines = record.spans, record.engines
    hosts = dict.fromkeys([*(s.host for s in spans), *(e.host for e in engines)])
    events: list[dict[str, Any]] = []
    for pid, host in enumerate(hosts, 1):
        events.append(_name("process_name", pid, 0, f"host {host}"))
        events.append({**_name("process_sort_index", pid, 0, ""), "args": {"sort_index": pid}})
        own = [span for span in spans if span.host == host]
        for lane, in_lane in enumerate(lanes(own)):
            thread = _STEPS + lane
            events.append(_name("thread_name", pid, thread, "steps"))
            events += [_event(record, pid, thread, span, span.step) for span in in_lane]
        starts = [engine for engine in engines if engine.host == host]
        for number, engine in enumerate(starts):
            thread = _ENGINES + number
            events.append(_name("thread_name", pid, thread, f"server {engine.node}"))
            events.append(_event(record, pid, thread, engine, f"{engine.node} starts"))
    about = {"command": record.what, "owner": record.owner, "began_at": record.began}
    about.update({"result": record.result, "error": record.error})
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """The same spans in as few rows as will do, so that none overlaps another of its row."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda one: one.start):
        row = next((row for row in rows if row[-1].end <= span.start), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": {"name": name}}


def _event(record: Record, pid: int, tid: int, one: Span | Engine, name: str) -> dict[str, Any]:
    start, end = one.start - record.began, one.end - record.began
    args: dict[str, Any] = {"host": one.host, "result": one.result}
    if isinstance(one, Engine) and one.behind:
        args["host_clock_behind_s"] = round(one.behind, 3)
    if start < 0:  # another clock, or begun by an earlier command: Perfetto drops what is below 0
        args["began_s"] = round(start, 3)
        start = 0.0 if end > 0 else start
        start, end = 0.0, end - start
    return {
        "ph": "X",
        "name": name,
        "cat": "step" if isinstance(one, Span) else "server",
        "pid": pid,
        "tid": tid,
        "ts": round(start * 1e6),
        "dur": round(max(0.0, end - start) * 1e6),
        "args": args,
    }
