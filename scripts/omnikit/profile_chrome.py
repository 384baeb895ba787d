"""Read a trace of PyTorch's profiler: Chrome's trace events as JSON, plain or compressed."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterator, Optional

from omnikit.profile_trace import Interval, Step, Trace, is_communication, length, own_times, union

Event = dict[str, Any]
# What an accelerator did; where there is nothing of this, the operators on the CPU count.
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_STEP = re.compile(r"execute_|ProfilerStep#")
# Steps without a token: the engine only asks whether KV has arrived.
_EMPTY = re.compile(r"execute_context_0\(0\)_generation_0\(0\)")


def read(path: Path, name: str, steps: Optional[int] = None) -> Trace:
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
    trace.steps = _steps(marks, work, device)
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


def _steps(marks: list[Event], work: list[Event], device: bool) -> list[Step]:
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
