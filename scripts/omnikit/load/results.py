"""What a load came to: figures out of the generator's result, kept as JSON and CSV.

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
