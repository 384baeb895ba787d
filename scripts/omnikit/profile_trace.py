"""What is known of one worker's trace, whatever profiler wrote it: steps, operators, gaps. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

Interval = tuple[float, float]
# Names of what moves data between workers: torch.distributed, NCCL and Gloo, and Ascend's HCCL.
_COMMUNICATION = re.compile(
    r"(?i)\b(c10d|nccl|gloo|hccl|hcom)|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all"
    r"|moe_?distribute|\b(isend|irecv|send|recv|receive)\b"
)


@dataclass
class Operator:
    """self_us: time in it without what it called."""

    name: str
    calls: int = 0
    self_us: float = 0.0

    @property
    def communication(self) -> bool:
        """Whether it moves data between workers."""
        return is_communication(self.name)


@dataclass(frozen=True)
class Step:
    """A step of the engine, in microseconds. communication: as far as nothing was computed
    meanwhile, where the profiler tells that; gap: neither; idle_before: since the step before.
    whole: all that was recorded, with the time between steps, because none was marked.
    """

    name: str
    span_us: float
    communication_us: float
    gap_us: float
    idle_before_us: float = 0.0
    whole: bool = False


@dataclass
class Trace:
    """A worker's trace. file: below the folder of traces; faults: why it cannot be relied on."""

    file: str
    steps: list[Step] = field(default_factory=list)
    operators: dict[str, Operator] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def marked(self) -> list[Step]:
        """The steps, as far as the profiler tells them apart."""
        return [step for step in self.steps if not step.whole]

    def add(self, name: str, self_us: float, calls: int = 1) -> None:
        """Count calls of an operator."""
        found = self.operators.setdefault(name, Operator(name))
        found.calls += calls
        found.self_us += self_us


def is_communication(name: str) -> bool:
    """Whether an operator moves data between workers.

    >>> [is_communication(n) for n in ("hcom_allReduce__881_0", "c10d::allgather_", "aten::addmm")]
    [True, True, False]
    """
    return _COMMUNICATION.search(name) is not None


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time as intervals in order that do not overlap.

    >>> union([(3, 4), (0, 2), (1, 3)])
    [(0, 4)]
    """
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def length(intervals: Iterable[Interval], window: Interval) -> float:
    """How much of a window intervals that do not overlap cover.

    >>> length([(0, 4), (6, 9)], (2, 8))
    4
    """
    return sum(max(0, min(end, window[1]) - max(begin, window[0])) for begin, end in intervals)


def own_times(events: Sequence[dict[str, Any]]) -> list[float]:
    """The time of each event of one thread without those inside it, in their order.

    events: with ts and dur, sorted by ts and, of those that begin together, the longest first.
    """
    own = [float(event["dur"]) for event in events]
    above: list[tuple[int, float]] = []  # index and end of those that are still open
    for index, event in enumerate(events):
        begin = float(event["ts"])
        while above and above[-1][1] <= begin:
            above.pop()
        if above:
            own[above[-1][0]] -= float(event["dur"])
        above.append((index, begin + float(event["dur"])))
    return [max(0.0, value) for value in own]
