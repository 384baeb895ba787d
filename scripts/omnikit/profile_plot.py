"""The picture of a profile: each worker's steps, and the operators that take most of each role."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

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
            _steps(plot, name, steps[:_SHOWN_STEPS])
        for plot, (role, operators) in zip(plots[len(workers) :], roles.items()):
            _operators(plot, role, operators[:_SHOWN_OPERATORS])
        figure.savefig(path, metadata={"Date": None})
    return True


def _steps(plot: Any, name: str, steps: list[Mapping[str, Any]]) -> None:
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


def _operators(plot: Any, role: str, operators: list[Mapping[str, Any]]) -> None:
    names = [f"{number + 1}. {one['name'][:_LONGEST]}" for number, one in enumerate(operators)]
    colors = ["C1" if one["communication"] else "C0" for one in operators]
    plot.barh(names, [one["self_ms"] for one in operators], color=colors)
    plot.invert_yaxis()
    plot.set(title=f"{role}: operators by time of their own", xlabel="ms")
