"""What is known of a worker's trace (steps, operators, gaps), read from either profiler's files."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Optional, Sequence

from hostkit.logs.profile import ANALYSED

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


# Read what Ascend's profiler writes: a folder *_ascend_pt with ASCEND_PROFILER_OUTPUT in it.
#
# Format: Ascend PyTorch Profiler, kernel_details.csv (a line for each operator on the device),
# step_trace_time.csv (computing, communication and free time of each step, in microseconds),
# communication.json (each collective's time in milliseconds), trace_view.json (Chrome's events).

_TIMELINE = "trace_view.json"
_WHOLE = 256 << 20  # a larger timeline is not read through; its two ends must fit together
_NOT_OVERLAPPED = "Communication(Not Overlapped)"


def read_ascend(folder: Path, name: str) -> Trace:
    """One worker's trace; what is wrong with it is in its faults. name: for people."""
    trace = Trace(name)
    there = folder / ANALYSED
    if not there.is_dir():
        line = "from torch_npu.profiler.profiler import analyse"
        trace.faults.append(
            f"was not analysed (no {ANALYSED}); where torch_npu is: "
            f"python3 -c \"{line}; analyse('{folder}')\""
        )
        return trace
    try:
        _kernels(there / "kernel_details.csv", trace)
        _ascend_steps(there / "step_trace_time.csv", trace)
        _communication(there / "communication.json", trace)
    except FileNotFoundError as error:
        trace.faults.append(f"has no {Path(str(error.filename)).name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        trace.faults.append(f"cannot be read: {type(error).__name__}: {error}")
    if not trace.faults and not trace.operators:
        trace.faults.append("has no operators in it: nothing was computed while it was recorded")
    trace.faults += _timeline(there / _TIMELINE)
    return trace


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The lines of a table; cells may have tabs and blanks around them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {str(key).strip(): str(value or "").strip() for key, value in row.items()}


def _kernels(path: Path, trace: Trace) -> None:
    """Operators by type: names carry numbers, of collectives and graphs."""
    for row in _rows(path):
        kind = row.get("Type", "")
        trace.add(row["Name"] if kind in ("", "N/A") else kind, float(row["Duration(us)"]))


def _ascend_steps(path: Path, trace: Trace) -> None:
    """Without profiler.step(), which omni-infer does not call, one row without a step is all."""
    for row in _rows(path):
        moving = float(row[_NOT_OVERLAPPED])
        free = float(row["Free"])
        span = float(row["Computing"]) + moving + free
        name = row.get("Step", "")
        trace.steps.append(Step(name or "all", span, moving, free, whole=not name))


def _communication(path: Path, trace: Trace) -> None:
    """Collectives, where the operators do not tell of them. The file is there with several devices.

    It has steps, in each of them kinds, in each of them operators.
    """
    if not path.is_file() or any(map(is_communication, trace.operators)):
        return
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for kinds in found.values():
        for operators in kinds.values():
            for name, about in operators.items():
                if name != "Total Op Info":
                    elapsed = float(about["Communication Time Info"]["Elapse Time(ms)"])
                    trace.add(name.partition("__")[0].partition("@")[0], elapsed * 1000)


def _timeline(path: Path) -> Iterator[str]:
    """What is wrong with the timeline, which is for people to open."""
    try:
        if path.stat().st_size <= _WHOLE:
            json.loads(path.read_bytes())
            return
        with path.open("rb") as file:
            first = file.read(1)
            file.seek(-64, 2)
            last = file.read().rstrip()[-1:]
    except FileNotFoundError:
        yield f"has no {path.name}"
    except (OSError, ValueError) as error:
        yield f"{path.name} is cut off or damaged: {error}"
    else:
        if first + last not in (b"[]", b"{}"):
            yield f"{path.name} is cut off: it ends with {last!r}"


# Read a trace of PyTorch's profiler: Chrome's trace events as JSON, plain or compressed.

Event = dict[str, Any]
# What an accelerator did; where there is nothing of this, the operators on the CPU count.
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_STEP = re.compile(r"execute_|ProfilerStep#")
# Steps without a token: the engine only asks whether KV has arrived.
_EMPTY = re.compile(r"execute_context_0\(0\)_generation_0\(0\)")


def read_chrome(path: Path, name: str, steps: Optional[int] = None) -> Trace:
    """One worker's trace; what is wrong with it is in its faults. name: for people.

    steps: so many that compute something, at the most; the file may have more.
    """
    trace = Trace(name)
    try:
        events = _events(path)
    except (OSError, EOFError, zlib.error) as error:
        trace.faults.append(f"is cut off or damaged: {error}")
        return trace
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        trace.faults.append(f"is no Chrome trace: {error}")
        return trace
    work = [e for e in events if e.get("cat") in _DEVICE]
    device = bool(work)
    marks = sorted((e for e in events if _is_step(e)), key=lambda e: float(e["ts"]))
    work = work or [e for e in events if e.get("cat") == "cpu_op"]
    if not work:
        trace.faults.append("has no operators in it: nothing was computed while it was recorded")
        return trace
    if steps is not None and len(marks) > steps:
        # What is between two steps belongs to the one before.
        work = [e for e in work if float(e["ts"]) < float(marks[steps]["ts"])] or work
        marks = marks[:steps]
    for thread in _threads(work):
        for event, own in zip(thread, own_times(thread)):
            trace.add(str(event["name"]), own)
    trace.steps = _chrome_steps(marks, work, device)
    return trace


def _events(path: Path) -> list[Event]:
    """All events that last. Raises where the file is not what it should be."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        data = gzip.decompress(data)
    found = json.loads(data)
    events = found if isinstance(found, list) else found["traceEvents"]
    return [e for e in events if e.get("ph") == "X" and "ts" in e and "dur" in e]


def _is_step(event: Event) -> bool:
    name = str(event.get("name"))
    known = event.get("cat") == "user_annotation" and _STEP.match(name) is not None
    return known and _EMPTY.match(name) is None


def _threads(events: list[Event]) -> Iterator[list[Event]]:
    by_thread: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in events:
        by_thread[event.get("pid"), event.get("tid")].append(event)
    for thread in by_thread.values():
        yield sorted(thread, key=lambda e: (e["ts"], -e["dur"]))


def _interval(event: Event) -> Interval:
    return float(event["ts"]), float(event["ts"]) + float(event["dur"])


def _chrome_steps(marks: list[Event], work: list[Event], device: bool) -> list[Step]:
    """The engine's steps; one over all where none is marked.

    A device works on a step after the CPU has: there a step goes from its first operator to its
    last, and operators belong to the step that was marked before them.
    """
    busy = union(map(_interval, work))
    computing = union(_interval(e) for e in work if not is_communication(str(e["name"])))
    windows = [(str(mark["name"]), _interval(mark)) for mark in marks]
    windows = windows or [("all", (busy[0][0], busy[-1][1]))]
    if device and marks:
        windows = list(_device_windows(windows, busy))
    steps: list[Step] = []
    last = windows[0][1][0] if windows else 0.0
    for name, (begin, end) in windows:
        span = end - begin
        worked = length(busy, (begin, end))
        moved = max(0.0, worked - length(computing, (begin, end)))
        gap, idle = max(0.0, span - worked), max(0.0, begin - last)
        steps.append(Step(name, span, moved, gap, idle, whole=not marks))
        last = end
    return steps


def _device_windows(
    windows: list[tuple[str, Interval]], busy: list[Interval]
) -> Iterator[tuple[str, Interval]]:
    ends = [window[0] for _, window in windows[1:]] + [float("inf")]
    for (name, (begin, _)), end in zip(windows, ends):
        mine = [interval for interval in busy if begin <= interval[0] < end]
        if mine:
            yield name, (mine[0][0], mine[-1][1])
