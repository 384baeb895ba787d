"""Read what Ascend's profiler writes: a folder *_ascend_pt with ASCEND_PROFILER_OUTPUT in it.

Format: Ascend PyTorch Profiler, kernel_details.csv (a line for each operator on the device),
step_trace_time.csv (computing, communication and free time of each step, in microseconds),
communication.json (each collective's time in milliseconds), trace_view.json (Chrome's events).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Iterator

from omnikit.host_profile import ANALYSED
from omnikit.profile_trace import Step, Trace, is_communication

_TIMELINE = "trace_view.json"
_WHOLE = 256 << 20  # a larger timeline is not read through; its two ends must fit together
_NOT_OVERLAPPED = "Communication(Not Overlapped)"


def read(folder: Path, name: str) -> Trace:
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
        _steps(there / "step_trace_time.csv", trace)
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


def _steps(path: Path, trace: Trace) -> None:
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
