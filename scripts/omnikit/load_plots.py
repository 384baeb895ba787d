"""Pictures of a load's result, each as SVG and PNG, with earlier results beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from omnikit.load_options import PERCENTILES
from omnikit.load_table import names
from omnikit.result_file import written

Result = Mapping[str, Any]
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
