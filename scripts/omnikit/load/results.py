"""What a load came to: figures out of the generator's result, kept as JSON and CSV, and shown
beside earlier results: tables with the difference, pictures.

Times are in milliseconds, as the generator gives them; None where no request was answered.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.log import table
from hostkit.base.writing import written
from hostkit.files import regular
from omnikit.load.levels import METRICS, PERCENTILES, Level

FORMAT = "omnikit-serving-benchmark-1"
FILE = "result.json"
STATISTICS = ("mean", *(f"p{number}" for number in PERCENTILES))
RATES = {
    "requests_per_s": "request_throughput",
    "output_tokens_per_s": "output_throughput",
    "total_tokens_per_s": "total_token_throughput",
}
_LOAD_KEYS = ("input_tokens_each", "output_tokens_each", "chat")
_LONGEST = 140  # characters of a kind of error
_HEADERS = {
    "ttft": "TTFT ms",
    "tpot": "TPOT ms",
    "itl": "ITL ms",
    "e2el": "end to end ms",
}
_TITLES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2el": "end to end",
}
_DASHES = ("solid", "dashed", "dotted", "dashdot")
# No time and no random names in the files: the same result gives the same picture.
_SAME = {"svg.hashsalt": "omnikit", "figure.constrained_layout.use": True}
Result = Mapping[str, Any]
Run = Mapping[str, Any]


def error_kind(text: str) -> str:
    """What requests that failed in the same way have in common.

    >>> error_kind("Bad Gateway")
    'answer: Bad Gateway'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    if lines[0].startswith("Traceback"):
        name, colon, said = lines[-1].partition(":")
        return f"{name.rpartition('.')[2]}{colon}{said}"[:_LONGEST]
    return f"answer: {lines[-1]}"[:_LONGEST]


def run_of(
    level: Level, raw: Mapping[str, Any], requests: int, output_tokens: int
) -> dict[str, Any]:
    """The figures of one level. raw: the generator's result, kept with them.

    short: answers with fewer tokens than were asked for.
    """
    completed = int(raw.get("completed") or 0)
    failures = [error for error in raw.get("errors", []) if error]
    kinds = Counter(error_kind(error) for error in failures)
    failed = max(requests - completed, len(failures))
    if failed > len(failures):
        kinds[error_kind("")] += failed - len(failures)
    good = [n for n, why in zip(raw.get("output_lens", []), raw.get("errors", [])) if not why]
    made: dict[str, Any] = {
        "concurrency": level.concurrency,
        "rate": level.rate,
        "requests": requests,
        "completed": completed,
        "failed": failed,
        "errors": dict(kinds.most_common()),
        "short": sum(tokens < output_tokens for tokens in good),
        "duration_s": raw.get("duration"),
        "input_tokens": raw.get("total_input_tokens"),
        "output_tokens": raw.get("total_output_tokens"),
    }
    made.update({key: raw.get(name) if completed else None for key, name in RATES.items()})
    for metric in METRICS:
        made[f"{metric}_ms"] = {
            which: raw.get(f"{which}_{metric}_ms") if completed else None for which in STATISTICS
        }
    return {**made, "raw": dict(raw)}


def broken(level: Level, error: str, requests: int) -> dict[str, Any]:
    """A level whose generator itself failed."""
    made = run_of(level, {}, requests, 0)
    return {**made, "errors": {f"the load generator: {error}"[:_LONGEST]: requests}}


def ok(result: Mapping[str, Any]) -> bool:
    """Whether every request of every level was answered."""
    runs = result["runs"]
    wanted = len(result["load"]["levels"])
    return len(runs) == wanted and all(r["completed"] and not r["failed"] for r in runs)


def without_raw(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures alone."""
    runs = [{key: value for key, value in run.items() if key != "raw"} for run in result["runs"]]
    return {**result, "runs": runs}


def csv_text(result: Mapping[str, Any]) -> str:
    """One row per level, with a heading."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    same = {key: result[key] for key in ("name", "url", "model", "began")}
    same.update({key: result["load"][key] for key in ("input_tokens_each", "output_tokens_each")})
    for number, run in enumerate(result["runs"]):
        row: dict[str, Any] = {**same}
        for key, value in run.items():
            if key == "errors":
                row[key] = "; ".join(f"{count} x {kind}" for kind, count in value.items())
            elif isinstance(value, dict) and key != "raw":
                row.update({f"{key[:-3]}_{which}_ms": value[which] for which in STATISTICS})
            elif key != "raw":
                row[key] = value
        if number == 0:
            writer.writerow(row)
        writer.writerow("" if value is None else value for value in row.values())
    return file.getvalue()


def keep(folder: Path, result: Mapping[str, Any]) -> None:
    """Write result.json and result.csv, whole."""
    texts = {FILE: json.dumps(result, ensure_ascii=False) + "\n", "result.csv": csv_text(result)}
    for name, text in texts.items():
        with written(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """An earlier result: its file, or the folder with it. Raises InputError."""
    file = path / FILE if path.is_dir() else path
    try:
        found = regular.parsed(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InputError(
            f"the earlier result cannot be read: {why}.",
            where=f"--compare {path}",
            todo=f"give a {FILE} that invoke benchmark-serving has written, or its folder",
        ) from error
    why = _fault(found)
    if why:
        raise InputError(
            f"the file is no result of this command: {why}.",
            where=f"--compare {path}",
            todo=f"give a {FILE} that invoke benchmark-serving has written, or its folder",
        )
    checked: dict[str, Any] = found
    return checked


def _fault(found: Any) -> str:
    """What a result lacks that is shown of it, "" for nothing: it is read before the load runs."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return f'"format" is not {FORMAT}'
    for key, kind in {"name": str, "began": str, "load": dict, "runs": list}.items():
        if not isinstance(found.get(key), kind):
            return f'"{key}" is missing or of another kind'
    lacking = [key for key in _LOAD_KEYS if key not in found["load"]]
    if lacking:
        return f'"load" has no "{lacking[0]}"'
    faults = (fault for run in found["runs"] for fault in _run_faults(run))
    return next(faults, "")


def _run_faults(run: Any) -> Iterator[str]:
    if not isinstance(run, dict):
        yield "a run is of another kind"
        return
    for key in ("concurrency", "rate", "duration_s", *RATES):
        if not isinstance(run.get(key, ""), (int, float, type(None))):
            yield f'a run has no number "{key}"'
    for key in ("requests", "completed", "failed"):
        if not isinstance(run.get(key), int):
            yield f'a run has no number "{key}"'
    for metric in METRICS:
        times = run.get(f"{metric}_ms")
        if not isinstance(times, dict) or any(which not in times for which in STATISTICS):
            yield f'a run has no whole "{metric}_ms"'
    raw = run.get("raw")
    lists = ("errors", "ttfts", "itls")
    if not isinstance(raw, dict) or any(not isinstance(raw.get(k, []), list) for k in lists):
        yield 'a run has no whole "raw"'


def at_level(result: Mapping[str, Any], run: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    """The run of an earlier result under the same load, if it has one."""
    runs: Sequence[dict[str, Any]] = result["runs"]
    same = [r for r in runs if (r["concurrency"], r["rate"]) == (run["concurrency"], run["rate"])]
    return same[0] if same else None


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
    parts = [table(_rows(result, others), requests)]
    rows = []
    for metric, header in _HEADERS.items():
        rows += [[header, *row] for row in _rows(result, others, metric)]
    parts.append(table(rows, ["latency", "load", "run", *STATISTICS]))
    notes = _notes(result, others)
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def _rows(
    result: Result, others: Sequence[Result], metric: Optional[str] = None
) -> list[list[str]]:
    """metric: whose latencies are shown; None: how many were answered, and throughput."""

    def lead(run: Run) -> list[str]:
        answered = f"{run['completed']} of {run['requests']}"
        return [] if metric else [answered, str(run["failed"]), shown(run["duration_s"])]

    def cells(run: Run) -> list[Optional[float]]:
        times = run[f"{metric}_ms"] if metric else {}
        return [times[which] for which in STATISTICS] if metric else [run[key] for key in RATES]

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


def _notes(result: Result, others: Sequence[Result]) -> list[str]:
    said = []
    for run in result["runs"]:
        load = _load(run)
        said += [f"{load}: {count} x {kind}" for kind, count in run["errors"].items()]
        if run["short"]:
            said.append(f"{load}: {run['short']} answers were shorter than asked for")
    for name, other in zip(names(result, others), others):
        mine, theirs = result["load"], other["load"]
        for key in _LOAD_KEYS:
            if mine[key] != theirs[key]:
                what = key.replace("_", " ")
                said.append(f"not the same load: {what} {mine[key]} here, {theirs[key]} in {name}")
        missing = [run for run in result["runs"] if at_level(other, run) is None]
        levels = "; ".join(map(_load, missing))
        if missing:
            said.append(f"{name} has no run with: {levels}")
    return said


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
