"""What other commands left on the control host that a report shows. Reads only; never raises for
a file that is damaged: it is left out.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from omnikit import causes, profile_summary
from omnikit.deployment import control_folder
from omnikit.layers import PROJECT, shown_path

BENCHMARKS = 12  # results shown, the newest
PROFILES = 4  # shown, the newest
AUDIT = 40  # lines shown, the newest
KINDS = 30  # kinds of error shown
PICTURE_BYTES = 400 << 10  # of one picture
PICTURES_BYTES = 1200 << 10  # of all
LATENCIES = ("ttft", "tpot", "e2el")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def benchmarks(environment: str) -> list[dict[str, Any]]:
    """Results of load tests, the newest first: of invoke benchmark-serving, or of vLLM's own."""
    folder = control_folder(environment) / "benchmarks"
    found = []
    for path in folder.rglob("*.json") if folder.is_dir() else ():
        data = _json(path)
        if isinstance(data, dict) and (_runs(data) or "request_throughput" in data):
            found.append((path.stat().st_mtime, path, data))
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for _, path, data in sorted(found, key=lambda one: -one[0])[:BENCHMARKS]:
        pictures = [] if made and path.parent == folder else list(_pictures(path.parent, left))
        left -= sum(len(picture["data"]) for picture in pictures)
        made.append({**_benchmark(path, data), "pictures": pictures})
    return made


def _runs(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    runs = data.get("runs")
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []


def _benchmark(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    name = path.parent.name if path.stem == "result" else path.stem
    return {
        "name": str(data.get("name") or name),
        "file": shown_path(path),
        "model": str(data.get("model") or data.get("model_id") or "-"),
        "time": str(data.get("began") or data.get("date") or "-"),
        "cause": str(data.get("cause") or ""),
        "runs": [_own_run(run) for run in _runs(data)] or [_vllm_run(data)],
    }


def _own_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A level of invoke benchmark-serving."""

    def of(metric: str, which: str) -> Any:
        found = run.get(f"{metric}_ms")
        return found.get(which) if isinstance(found, dict) else None

    keys = ("concurrency", "rate", "completed", "failed", "requests_per_s", "output_tokens_per_s")
    made = {key: run.get(key) for key in keys}
    for metric in LATENCIES:
        made.update({f"{metric}_{which}": of(metric, which) for which in ("p50", "p99")})
    return made


def _vllm_run(data: Mapping[str, Any]) -> dict[str, Any]:
    """The result file of vLLM's bench serve."""
    completed, wanted = data.get("completed"), data.get("num_prompts")
    numbers = isinstance(completed, int) and isinstance(wanted, int)
    made = {
        "concurrency": data.get("max_concurrency"),
        "rate": data.get("request_rate"),
        "completed": completed,
        "failed": data.get("failed", wanted - completed if numbers else None),  # type: ignore[operator]
        "requests_per_s": data.get("request_throughput"),
        "output_tokens_per_s": data.get("output_throughput"),
    }
    for metric in LATENCIES:
        made[f"{metric}_p50"] = data.get(f"p50_{metric}_ms", data.get(f"median_{metric}_ms"))
        made[f"{metric}_p99"] = data.get(f"p99_{metric}_ms")
    return made


def _pictures(folder: Path, left: int) -> Iterator[dict[str, str]]:
    """SVG files as data: addresses. As a picture an SVG runs no script and loads nothing."""
    for path in sorted(folder.glob("*.svg")):
        size = path.stat().st_size
        if size > PICTURE_BYTES or size * 4 / 3 > left:
            continue
        data = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
        left -= len(data)
        yield {"name": path.stem, "data": data}


def profiles(environment: str) -> list[dict[str, Any]]:
    """What profiles came to, the newest first: workers, first operators of each role, faults."""
    folder = control_folder(environment) / "profiles"
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for path in sorted(folder.glob("*/summary.json"), reverse=True) if folder.is_dir() else ():
        try:
            one = _profile(_json(path))
        except (KeyError, TypeError, AttributeError, ValueError):
            continue  # of another release, or not whole
        pictures = list(_pictures(path.parent, left))
        left -= sum(len(picture["data"]) for picture in pictures)
        name = path.parent.name
        made.append({**one, "name": name, "file": shown_path(path), "pictures": pictures})
        if len(made) == PROFILES:
            break
    return made


def _profile(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "began": str(data["began"]),
        "workers": profile_summary.worker_rows(data),
        "roles": {name: profile_summary.operator_rows(one) for name, one in data["roles"].items()},
        "notes": [str(note) for note in data["notes"]],
        "faults": [str(fault) for fault in data["faults"]],
    }


def log_errors(environment: str, above: Optional[Path] = None) -> Optional[dict[str, Any]]:
    """The summary of the logs that were fetched last, with what is known of each error."""
    folder = above or PROJECT / "build" / "logs"
    for path in sorted(folder.glob(f"{environment}-*/index.json"), reverse=True):
        data = _json(path)
        try:
            if data["environment"] == environment:
                return _errors(path, data)
        except (KeyError, TypeError, AttributeError):
            continue  # it is none, or not whole
    return None


def _errors(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    known = {cause.name: cause for cause in causes.catalogue()}
    for one in index.get("errors", []):
        kind = kinds.setdefault(
            one["kind"], {"kind": one["kind"], "count": 0, "hosts": [], "first": None, "last": None}
        )
        kind["count"] += one["count"]
        kind["hosts"].append(one["host"])
        if one["first"] and (kind["first"] is None or one["first"] < kind["first"]):
            kind["first"] = one["first"]
        kind["last"] = max(filter(None, [kind["last"], one["last"]]), default=None)
        kind.setdefault("example", one["example"])
        cause = known.get(one["name"] or "")
        kind["cause"], kind["remedy"] = (cause.cause, cause.remedy) if cause else ("", "")
    failed = {h: a["error"] for h, a in index.get("hosts", {}).items() if a.get("error")}
    return {
        "file": shown_path(path),
        "fetched_at": index.get("fetched_at"),
        "since": index.get("since"),
        "not_fetched": failed,
        "kinds": list(kinds.values())[:KINDS],
        "more": max(0, len(kinds) - KINDS),
    }


def audit(environment: str) -> list[dict[str, Any]]:
    """Who changed the environment from here, when, and how it ended; the newest first."""
    path = control_folder(environment) / "audit.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[-AUDIT:]
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(
                {key: str(entry.get(key, "")) for key in ("time", "owner", "what", "result")}
            )
    return found
