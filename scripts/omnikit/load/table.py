"""The result of a load for people, beside earlier ones with the difference: tables, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base.log import table
from hostkit.base.writing import written
from omnikit.load.levels import METRICS, PERCENTILES, Level
from omnikit.load.results import RATES, STATISTICS, at_level

# Pictures of a load's result, each as SVG and PNG, with earlier results beside it.

_TITLES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2el": "end to end",
}
_DASHES = ("solid", "dashed", "dotted", "dashdot")
# No time and no random names in the files: the same result gives the same picture.
_SAME = {"svg.hashsalt": "omnikit", "figure.constrained_layout.use": True}


def draw(folder: Path, result: Result, others: Sequence[Result]) -> list[Path]:
    """Write latency, throughput and distribution; returns the files.

    Runs without an answer leave a gap.
    """
    import matplotlib  # late: it takes a second

    matplotlib.use("Agg")
    named = [(result["name"], result), *zip(names(result, others), others)]
    with matplotlib.rc_context(_SAME):
        figures = {
            "latency": _latency(named),
            "throughput": _throughput(named),
            "distribution": _distribution(named),
        }
        made = []
        for name, figure in figures.items():
            for ending in ("svg", "png"):
                made.append(folder / f"{name}.{ending}")
                metadata = {"Date": None} if ending == "svg" else {}
                with written(made[-1]) as beside:
                    figure.savefig(beside, metadata=metadata, dpi=120)
    return made


def _figure(rows: int, columns: int, width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _axis(result: Result) -> tuple[str, str]:
    """The key and the words of what was swept."""
    rated = any(run["rate"] is not None for run in result["runs"])
    return ("rate", "requests per second sent") if rated else ("concurrency", "concurrent requests")


def _points(result: Result, key: str) -> list[Mapping[str, Any]]:
    runs = [run for run in result["runs"] if run[key] is not None]
    return sorted(runs, key=lambda run: float(run[key]))


def _swept(named: Sequence[tuple[str, Result]], key: str) -> list[Any]:
    """Every value that any of the results has a run for."""
    return sorted({run[key] for _, result in named for run in _points(result, key)})


def _line(plot: Any, result: Result, key: str, values: list[Any], **how: Any) -> None:
    numbers = [float("nan") if value is None else value for value in values]
    plot.plot([run[key] for run in _points(result, key)], numbers, marker="o", **how)


def _finish(plot: Any, title: str, x: str, y: str) -> None:
    plot.set(title=title, xlabel=x, ylabel=y)
    plot.set_ylim(bottom=0)
    plot.grid(alpha=0.3)
    if plot.get_legend_handles_labels()[0]:
        plot.legend(fontsize="x-small")


def _latency(named: Sequence[tuple[str, Result]]) -> Any:
    figure, plots = _figure(2, 2, 11, 8)
    key, words = _axis(named[0][1])
    for plot, (metric, title) in zip(plots, _TITLES.items()):
        for number, (name, result) in enumerate(named):
            for color, percentile in enumerate(PERCENTILES):
                values = [r[f"{metric}_ms"][f"p{percentile}"] for r in _points(result, key)]
                style = {"color": f"C{color}", "linestyle": _DASHES[number % len(_DASHES)]}
                _line(plot, result, key, values, label=f"{name} p{percentile}", **style)
        plot.set_xticks(_swept(named, key))
        _finish(plot, title, words, "ms")
    return figure


def _throughput(named: Sequence[tuple[str, Result]]) -> Any:
    figure, plots = _figure(1, 2, 11, 4.5)
    key, words = _axis(named[0][1])
    shown = {"requests_per_s": "requests/s", "output_tokens_per_s": "output tokens/s"}
    for plot, (figure_key, y) in zip(plots, shown.items()):
        for name, result in named:
            values = [run[figure_key] for run in _points(result, key)]
            _line(plot, result, key, values, label=name)
        plot.set_xticks(_swept(named, key))
        _finish(plot, y, words, y)
    return figure


def _distribution(named: Sequence[tuple[str, Result]]) -> Any:
    """Which share of the first tokens, and of the gaps between tokens, took at most how long."""
    figure, plots = _figure(1, 2, 11, 4.5)
    key, _ = _axis(named[0][1])
    swept = _swept(named, key)
    for number, (name, result) in enumerate(named):
        for run in _points(result, key):
            color = f"C{swept.index(run[key]) % 10}"
            how = {"color": color, "linestyle": _DASHES[number % len(_DASHES)]}
            label = f"{name}, {key} {run[key]:g}"
            raw = run["raw"]
            answered = [not error for error in raw.get("errors", [])]
            firsts = [t for t, good in zip(raw.get("ttfts", []), answered) if good]
            gaps = [t for ts, good in zip(raw.get("itls", []), answered) if good for t in ts]
            for plot, seconds in zip(plots, (firsts, gaps)):
                if seconds:
                    plot.ecdf([1000 * s for s in seconds], label=label, **how)
    for plot, title in zip(plots, (_TITLES["ttft"], _TITLES["itl"])):
        _finish(plot, title, "ms", "share at most so long")
    return figure


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
