"""The result of a load as tables for people, beside earlier ones with the difference. Pure."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Sequence

from omnikit.load_options import METRICS, Level
from omnikit.load_result import RATES, STATISTICS, at_level
from omnikit.log import table

_HEADERS = {
    "ttft": "TTFT ms",
    "tpot": "TPOT ms",
    "itl": "ITL ms",
    "e2el": "end to end ms",
}
Result = Mapping[str, Any]
Run = Mapping[str, Any]
Cells = Callable[[Run], "list[Optional[float]]"]


def shown(value: Optional[float]) -> str:
    """A figure with three digits that count.

    >>> [shown(value) for value in (None, 0.01234, 2.345, 1234.5)]
    ['-', '0.0123', '2.35', '1234']
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def difference(now: Optional[float], earlier: Optional[float]) -> str:
    """How much more or less than earlier, in percent.

    >>> difference(3.0, 2.0), difference(1.0, 0.0), difference(None, 2.0)
    ('+50.0 %', '-', '-')
    """
    if now is None or not earlier:
        return "-"
    return f"{100 * (now - earlier) / earlier:+.1f} %"


def _load(run: Run) -> str:
    """The load of a run; a warm-up is there only when nothing came after it."""
    return "warm-up" if run.get("warm_up") else str(Level(run["concurrency"], run["rate"]))


def names(result: Result, others: Sequence[Result]) -> list[str]:
    """What each earlier result is called: by its name, and its time where that is taken."""
    taken = [result["name"], *(other["name"] for other in others)]
    return [
        f"{other['name']} {other['began']}" if taken.count(other["name"]) > 1 else other["name"]
        for other in others
    ]


def as_text(result: Result, others: Sequence[Result]) -> str:
    """Throughput, latencies, and what there is to say about errors and unequal loads."""
    requests = ["load", "run", "answered", "failed", "s", "requests/s", "output tok/s", "all tok/s"]
    parts = [table(_rows(result, others, _counts, _rates), requests)]
    rows = []
    for metric, header in _HEADERS.items():
        found = _rows(result, others, lambda _: [], _latencies(metric))
        rows += [[header, *row] for row in found]
    parts.append(table(rows, ["latency", "load", "run", *STATISTICS]))
    notes = _notes(result, others)
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def _rows(
    result: Result, others: Sequence[Result], lead: Callable[[Run], list[str]], cells: Cells
) -> list[list[str]]:
    rows = []
    for run in result["runs"]:
        load = _load(run)
        now = cells(run)
        rows.append([load, result["name"], *lead(run), *map(shown, now)])
        for name, other in zip(names(result, others), others):
            earlier = at_level(other, run)
            if earlier is None:
                continue
            then = cells(earlier)
            rows.append(["", name, *lead(earlier), *map(shown, then)])
            apart = [difference(a, b) for a, b in zip(now, then)]
            rows.append(["", "difference", *["" for _ in lead(run)], *apart])
    return rows


def _counts(run: Run) -> list[str]:
    answered = f"{run['completed']} of {run['requests']}"
    return [answered, str(run["failed"]), shown(run["duration_s"])]


def _rates(run: Run) -> list[Optional[float]]:
    return [run[key] for key in RATES]


def _latencies(metric: str) -> Cells:
    assert metric in METRICS
    return lambda run: [run[f"{metric}_ms"][which] for which in STATISTICS]


def _notes(result: Result, others: Sequence[Result]) -> list[str]:
    said = []
    for run in result["runs"]:
        load = _load(run)
        said += [f"{load}: {count} x {kind}" for kind, count in run["errors"].items()]
        if run["short"]:
            said.append(f"{load}: {run['short']} answers were shorter than asked for")
    for name, other in zip(names(result, others), others):
        mine, theirs = result["load"], other["load"]
        for key in ("input_tokens_each", "output_tokens_each", "chat"):
            if mine[key] != theirs[key]:
                what = key.replace("_", " ")
                said.append(f"not the same load: {what} {mine[key]} here, {theirs[key]} in {name}")
        missing = [run for run in result["runs"] if at_level(other, run) is None]
        levels = "; ".join(map(_load, missing))
        if missing:
            said.append(f"{name} has no run with: {levels}")
    return said
