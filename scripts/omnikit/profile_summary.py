"""What traces come to: by role and worker, the operators that take most, communication and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence

from omnikit import profile_ascend, profile_chrome
from omnikit.host_profile import ASCEND, TRACES
from omnikit.log import table
from omnikit.plan_types import NodePlan
from omnikit.profile_trace import Step, Trace, is_communication

FORMAT = 1
_TOP = 10  # operators that are shown; summary.json has all
WORKER_HEAD = ("worker", "role", "steps", "step ms", "communication", "gaps", "idle between ms")
UNMARKED = "the profiler did not mark steps: figures are of the whole recording, with idle time"
OPERATOR_HEAD = ("operator", "calls", "self ms", "share")


@dataclass(frozen=True)
class Recorded:
    """The traces of one node's workers, and how many workers there are."""

    node: NodePlan
    workers: int
    traces: Sequence[Trace]

    @property
    def faults(self) -> list[str]:
        """Why this is not all that was to be recorded."""
        found = [f"{trace.file} {fault}" for trace in self.traces for fault in trace.faults]
        if len(self.traces) != self.workers:
            said = f"{len(self.traces)} of {self.workers} workers left a trace"
            found.insert(0, f"{self.node.name}: {said}")
        return found


def read(folder: Path, node: NodePlan, workers: int, steps: int) -> Recorded:
    """All traces of a node, at most so many steps. folder: has a folder of the node's name."""
    own = folder / node.name
    traces = []
    for path in sorted(own.rglob("*")) if own.is_dir() else []:
        name = str(path.relative_to(folder))
        if path.is_dir() and path.name.endswith(ASCEND):
            traces.append(profile_ascend.read(path, name))
        elif path.is_file() and path.name.endswith(TRACES):
            traces.append(profile_chrome.read(path, name, steps))
    return Recorded(node, workers, traces)


def workers_of(node: NodePlan) -> int:
    """How many processes of a node compute: one on each device, or as many as it is split into."""
    return len(node.devices) or len(node.servers) * node.tensor_parallel


def build(recorded: Sequence[Recorded], steps: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as data. steps: that were wanted; about: what else belongs into it."""
    roles = dict.fromkeys(one.node.role for one in recorded)
    return {
        "format": FORMAT,
        **about,
        "steps_wanted": steps,
        "faults": [fault for one in recorded for fault in one.faults],
        "notes": list(_notes([t for one in recorded for t in one.traces], steps)),
        "roles": {
            role: _sums([t for one in recorded if one.node.role == role for t in one.traces])
            for role in roles
        },
        "instances": [
            {
                "name": one.node.name,
                "role": one.node.role,
                "host": one.node.host,
                "workers": one.workers,
                "traces": [_worker(trace) for trace in one.traces],
            }
            for one in recorded
        ],
    }


def _notes(traces: Iterable[Trace], steps: int) -> Iterator[str]:
    whole = False
    for trace in traces:
        if trace.faults:
            continue
        if len(trace.marked) < len(trace.steps):
            whole = True
        elif len(trace.marked) < steps:
            remedy = "for more, more requests: --set profiling.requests=N"
            yield f"{trace.file} has {len(trace.marked)} of {steps} steps; {remedy}"
    if whole:
        yield UNMARKED


def _worker(trace: Trace) -> dict[str, Any]:
    steps = [
        {
            "name": step.name,
            "ms": _ms(step.span_us),
            "communication_ms": _ms(step.communication_us),
            "gap_ms": _ms(step.gap_us),
            "idle_before_ms": _ms(step.idle_before_us),
        }
        for step in trace.marked
    ]
    found = {"file": trace.file, "faults": trace.faults, **_sums([trace])}
    return {**found, "steps": steps}


def _ms(value: float) -> float:
    return round(value / 1000, 4)


def _share(part: float, whole: float) -> Optional[float]:
    return round(part / whole, 4) if whole else None


def _sums(traces: Sequence[Trace]) -> dict[str, Any]:
    """Sums over traces; shares are of the steps' time, or of the whole recording where no steps are
    marked, null where there is neither.
    """
    steps = [step for trace in traces for step in trace.steps]
    marked = [step for trace in traces for step in trace.marked]
    span = sum(step.span_us for step in steps)
    operators = _operators(traces)
    own = sum(one["self_ms"] for one in operators)
    moving = sum(one["self_ms"] for one in operators if one["communication"])
    return {
        "step_count": len(marked),
        "step_ms": _ms(median(step.span_us for step in marked)) if marked else None,
        "whole_recording": len(marked) < len(steps),
        "communication_share": _share(sum(step.communication_us for step in steps), span),
        "communication_share_of_operators": _share(moving, own),
        "gap_share": _share(sum(step.gap_us for step in steps), span),
        "idle_between_ms": _idle(marked) if marked else None,
        "operators": operators,
    }


def _idle(steps: Iterable[Step]) -> float:
    return _ms(sum(step.idle_before_us for step in steps))


def _operators(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """All operators, those first that take most themselves."""
    calls: dict[str, int] = {}
    times: dict[str, float] = {}
    for trace in traces:
        for one in trace.operators.values():
            calls[one.name] = calls.get(one.name, 0) + one.calls
            times[one.name] = times.get(one.name, 0.0) + one.self_us
    whole = sum(times.values())
    return [
        {
            "name": name,
            "calls": calls[name],
            "self_ms": _ms(times[name]),
            "share": _share(times[name], whole),
            "communication": is_communication(name),
        }
        for name in sorted(times, key=lambda name: (-times[name], name))
    ]


def worker_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for each worker, in the columns of WORKER_HEAD."""
    rows = []
    for instance in summary["instances"]:
        for number, worker in enumerate(instance["traces"]):
            several = len(instance["traces"]) > 1
            rows.append(
                [
                    f"{instance['name']}[{number}]" if several else instance["name"],
                    instance["role"],
                    "-" if worker.get("whole_recording") else str(worker["step_count"]),
                    _number(worker["step_ms"]),
                    _percent(worker["communication_share"]),
                    _percent(worker["gap_share"]),
                    _number(worker["idle_between_ms"]),
                ]
            )
    return rows


def operator_rows(sums: Mapping[str, Any]) -> list[list[str]]:
    """A row of text for each of a role's first operators, in the columns of OPERATOR_HEAD."""
    return [
        [one["name"], str(one["calls"]), _number(one["self_ms"]), _percent(one["share"])]
        for one in sums["operators"][:_TOP]
    ]


def as_text(summary: Mapping[str, Any]) -> str:
    """The summary for a person: a table of workers, then the operators of each role."""
    parts = [table(worker_rows(summary), list(WORKER_HEAD))]
    for role, sums in summary["roles"].items():
        lines = operator_rows(sums)
        if lines:
            parts.append(table(lines, [f"{role}: operator", *OPERATOR_HEAD[1:]]))
    parts += [f"note: {note}" for note in summary["notes"]]
    parts += [f"not complete: {fault}" for fault in summary["faults"]]
    return "\n\n".join(parts)


def _number(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: Optional[float]) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
