"""What traces come to: by role and worker, the operators that take most, communication and gaps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence

from hostkit.base.log import table
from hostkit.base.writing import unwritten, written
from hostkit.logs.profile import ASCEND, TRACES
from omnikit.plan.types import NodePlan
from omnikit.profile.trace import Trace, is_communication, read_ascend, read_chrome

# The picture of a profile: each worker's steps, and the operators that take most of each role.

_SHOWN_WORKERS = 12  # where there are more, one of each instance
_SHOWN_STEPS = 40  # of a worker
_SHOWN_OPERATORS = 8
_LONGEST = 40  # characters of an operator's name
# No time and no random names in the file: the same summary gives the same picture.
_SAME = {"svg.hashsalt": "omnikit", "figure.constrained_layout.use": True}


def draw(path: Path, summary: Mapping[str, Any]) -> bool:
    """Write the picture (SVG); False where there is nothing to be shown."""
    shown = [[w for w in instance["traces"] if w["steps"]] for instance in summary["instances"]]
    if sum(map(len, shown)) > _SHOWN_WORKERS:
        shown = [traces[:1] for traces in shown][:_SHOWN_WORKERS]
    workers = [(worker["file"], worker["steps"]) for traces in shown for worker in traces]
    roles = {role: sums["operators"] for role, sums in summary["roles"].items()}
    roles = {role: operators for role, operators in roles.items() if operators}
    if not workers and not roles:
        return False
    import matplotlib  # late: it takes a second

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SAME):
        rows = len(workers) + len(roles)
        figure = Figure(figsize=(10, 2.6 * rows))
        plots = figure.subplots(rows, 1, squeeze=False).ravel()
        for plot, (name, steps) in zip(plots, workers):
            _draw_steps(plot, name, steps[:_SHOWN_STEPS])
        for plot, (role, operators) in zip(plots[len(workers) :], roles.items()):
            _draw_operators(plot, role, operators[:_SHOWN_OPERATORS])
        figure.savefig(path, metadata={"Date": None})
    return True


def _draw_steps(plot: Any, name: str, steps: list[Mapping[str, Any]]) -> None:
    places = range(1, len(steps) + 1)
    below = [0.0] * len(steps)
    parts = {
        "operators": [s["ms"] - s["communication_ms"] - s["gap_ms"] for s in steps],
        "communication": [s["communication_ms"] for s in steps],
        "gaps": [s["gap_ms"] for s in steps],
    }
    for label, values in parts.items():
        plot.bar(places, values, bottom=below, label=label)
        below = [a + b for a, b in zip(below, values)]
    plot.set(title=name, xlabel="step", ylabel="ms")
    plot.xaxis.get_major_locator().set_params(integer=True)  # there is no step 1.5
    plot.legend(fontsize="x-small")


def _draw_operators(plot: Any, role: str, operators: list[Mapping[str, Any]]) -> None:
    names = [f"{number + 1}. {one['name'][:_LONGEST]}" for number, one in enumerate(operators)]
    colors = ["C1" if one["communication"] else "C0" for one in operators]
    plot.barh(names, [one["self_ms"] for one in operators], color=colors)
    plot.invert_yaxis()
    plot.set(title=f"{role}: operators by time of their own", xlabel="ms")


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
            traces.append(read_ascend(path, name))
        elif path.is_file() and path.name.endswith(TRACES):
            traces.append(read_chrome(path, name, steps))
    return Recorded(node, workers, traces)


def of(
    folder: Path,
    nodes: Sequence[NodePlan],
    steps: int,
    about: Mapping[str, Any],
    faults: Sequence[str],
) -> dict[str, Any]:
    """The summary of the traces in a folder. faults: more than the traces tell."""
    counted = [(node, workers_of(node)) for node in nodes]
    recorded = [read(folder, node, workers, steps) for node, workers in counted if workers]
    summary = build(recorded, steps, about)
    summary["faults"] = [*faults, *summary["faults"]]
    return summary


def keep(into: Path, summary: Mapping[str, Any]) -> None:
    """Write summary and picture, whole or not at all. Raises ActionError."""
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    try:
        with written(into / "summary.json") as beside:
            beside.write_text(text, encoding="utf-8")
        with written(into / "summary.svg") as beside:
            draw(beside, summary)
    except OSError as error:
        raise unwritten(error, into) from error


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
        "idle_between_ms": _ms(sum(one.idle_before_us for one in marked)) if marked else None,
        "operators": operators,
    }


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
