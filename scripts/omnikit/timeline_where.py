"""Where the time of a recorded deployment went. Pure; all times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

from omnikit.timeline import Span
from omnikit.timeline_records import Record

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
