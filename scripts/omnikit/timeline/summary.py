"""Where the time of a recorded deployment went, for people and for programs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Sequence

from hostkit.base.log import table
from omnikit.config.layers import shown_path
from omnikit.timeline.progress import Span
from omnikit.timeline.records import CUT_OFF, OK, Record, path_beside

# Where the time of a recorded deployment went. Pure; all times in seconds.

# What Ansible needs around our tasks, and what this machine does between them.
BETWEEN = "between steps"
GOOD = "ok"
_MOST_NAMES = 8  # hosts or steps named in a result
_EPSILON = 0.05  # what lies between two entries that follow each other at once


@dataclass(frozen=True)
class Part:
    """A stretch of the critical path. at: since the command began. host is "" between steps."""

    step: str
    host: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Step:
    """A step over all its hosts. seconds: while any host was at it; slowest: the last host.

    result: GOOD, or where it did not end well, as in "failed on p5; unreachable: p3".
    """

    step: str
    seconds: float
    hosts: int
    slowest: str
    longest: float
    shortest: float
    result: str


def waits_for_engines(step: str) -> bool:
    """Whether a step only waits until servers are ready. So the playbooks name such steps."""
    return step.startswith("Wait for ")


def covered(spans: Iterable[Span]) -> float:
    """How long at least one of them went on."""
    total, until = 0.0, float("-inf")
    for span in sorted(spans, key=lambda one: one.start):
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total


def waiting(record: Record) -> float:
    """How long any host waited for its engines."""
    return covered(span for span in record.spans if waits_for_engines(span.step))


def steps(record: Record) -> list[Step]:
    """Every step, the slowest first."""
    made = []
    for name in dict.fromkeys(span.step for span in record.spans):
        own = [span for span in record.spans if span.step == name]
        last = max(own, key=lambda span: span.seconds)
        made.append(
            Step(
                step=name,
                seconds=covered(own),
                hosts=len({span.host for span in own}),
                slowest=last.host,
                longest=last.seconds,
                shortest=min(span.seconds for span in own),
                result=_result(own),
            )
        )
    return sorted(made, key=lambda step: -step.seconds)


def went_well(span: Span) -> bool:
    """Whether a step did what it had to on its host."""
    return span.result in ("ok", "changed")


def _result(spans: Iterable[Span]) -> str:
    """Of the spans of one step: on which hosts it did not end well."""
    return _told(((s.result, s.host) for s in spans if not went_well(s)), " on ")


def host_results(record: Record) -> dict[str, str]:
    """By host: GOOD, or which steps did not end well, as in "failed: Start the servers"."""
    return {
        name: _told((span.result, span.step) for span in own if not went_well(span))
        for name, own in by_host(record.spans).items()
    }


def _told(bad: Iterable[tuple[str, str]], failed: str = ": ") -> str:
    """Results with the names that have them, each once; GOOD where there is none.

    failed: what stands after that word.
    """
    found: dict[str, dict[str, None]] = {}
    for result, name in bad:
        found.setdefault(result, {})[name] = None
    parts = [
        f"{result}{failed if result == 'failed' else ': '}{_named(list(names))}"
        for result, names in found.items()
    ]
    return "; ".join(parts) or GOOD


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def hosts(record: Record) -> dict[str, tuple[float, float]]:
    """By host: how long it was at work, and how long of that it waited for its engines."""
    return {
        name: (covered(own), covered(span for span in own if waits_for_engines(span.step)))
        for name, own in by_host(record.spans).items()
    }


def by_host(spans: Sequence[Span]) -> dict[str, list[Span]]:
    """The spans of each host, in the order in which the hosts first appear."""
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.host, []).append(span)
    return found


def critical_path(record: Record) -> list[Part]:
    """What the end waited for, one after the other, from the beginning to the end.

    At each moment it is the step that ended last before it: of a step on many hosts, the slowest.
    """
    parts: list[Part] = []
    at = record.ended
    while at - record.began > _EPSILON:
        before = [span for span in record.spans if span.start < at - _EPSILON]
        if not before:
            parts.append(Part(BETWEEN, "", 0.0, at - record.began))
            break
        last = max(before, key=lambda span: (min(span.end, at), span.start))
        end = min(last.end, at)
        if at - end > _EPSILON:
            parts.append(Part(BETWEEN, "", end - record.began, at - end))
        start = max(last.start, record.began)
        parts.append(Part(last.step, last.host, start - record.began, end - start))
        at = start
    return parts[::-1]


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
    own = hosts(record)
    results = host_results(record)
    trace = path_beside(record.path)
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
        "waiting_for_engines_s": round(waiting(record), 3),
        "waiting_for_engines": _share(waiting(record), record.seconds),
        "steps": [_rounded(asdict(step)) for step in steps(record)],
        "hosts": {
            name: {
                "seconds": round(busy, 3),
                "waiting_for_engines_s": round(idle, 3),
                "result": results[name],
            }
            for name, (busy, idle) in own.items()
        },
        "critical_path": [_rounded(asdict(p)) for p in critical_path(record)],
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
    waited = waiting(record)
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
    trace = path_beside(record.path)
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
    found = steps(record)
    # One that failed may have been quick: it is shown all the same.
    shown = [s for n, s in enumerate(found) if n < top or s.result != GOOD]
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
    found = sorted(hosts(record).items(), key=lambda one: -one[1][0])
    results = host_results(record)
    shown = [one for n, one in enumerate(found) if n < top or results[one[0]] != GOOD]
    rows = [
        [name, f"{busy:.1f}", _percent(busy, record.seconds), f"{idle:.1f}", results[name]]
        for name, (busy, idle) in shown
    ]
    header = ["hosts", "seconds", "share", "of that waiting", "result"]
    return table(rows, header) + _more(found, shown)


def _path(record: Record) -> str:
    rows = [
        [f"{part.at:.1f}", f"{part.seconds:.1f}", part.host or "-", part.step]
        for part in critical_path(record)
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
            _percent(waiting(record), record.seconds),
            record.owner.split(":")[0],
            ending(record)[:80],
        ]
        for record in records
    ]
    return table(rows, ["record", "command", "seconds", "waiting", "by", "end"])
