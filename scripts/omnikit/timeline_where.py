"""Where the time of a recorded deployment went. Pure; all times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

from omnikit.timeline import Span
from omnikit.timeline_records import Record

# What Ansible needs around our tasks, and what this machine does between them.
BETWEEN = "between steps"
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
    """A step over all its hosts. seconds: while any host was at it; slowest: the last host."""

    step: str
    seconds: float
    hosts: int
    slowest: str
    longest: float
    shortest: float


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
            )
        )
    return sorted(made, key=lambda step: -step.seconds)


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
