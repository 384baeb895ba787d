"""What other commands left on the control host that a report shows. Reads only; never raises for
a file that is damaged: it is left out, with a note.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from omnikit import causes, profile_summary
from omnikit.deployment import control_folder
from omnikit.layers import PROJECT, shown_path
from omnikit.report_notes import Note, left_out

BENCHMARKS = 12  # results shown, the newest
PROFILES = 4  # shown, the newest
AUDIT = 40  # lines shown, the newest
KINDS = 30  # kinds of error shown
PICTURE_BYTES = 400 << 10  # of one picture
PICTURES_BYTES = 1200 << 10  # of all
LATENCIES = ("ttft", "tpot", "e2el")


def _file(path: Path) -> Path:
    """The same path. Raises OSError for a folder, and for a pipe, which would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    return path


def _json(path: Path) -> Any:
    return json.loads(_file(path).read_text(encoding="utf-8"))


def utc(text: str) -> str:
    """A time as all of a report's are: in UTC. One without a zone is of this machine's."""
    for read in (datetime.fromisoformat, lambda one: datetime.strptime(one, "%Y%m%d-%H%M%S")):
        with suppress(ValueError, OverflowError):
            return read(text).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text


def benchmarks(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """Results of load tests, the newest first: of invoke benchmark-serving, or of vLLM's own."""
    folder = control_folder(environment) / "benchmarks"
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        with left_out(notes, path):
            data = _json(path)
            if isinstance(data, dict) and (_runs(data) or "request_throughput" in data):
                found.append((path.stat().st_mtime, path, _benchmark(path, data)))
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for _, path, one in sorted(found, key=lambda one: -one[0])[:BENCHMARKS]:
        shared = made and path.parent == folder
        pictures = [] if shared else list(_pictures(path.parent, left, notes))
        left -= sum(len(picture["data"]) for picture in pictures)
        made.append({**one, "pictures": pictures})
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
        "time": utc(str(data.get("began") or data.get("date") or "-")),
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


def _pictures(folder: Path, left: int, notes: list[Note]) -> Iterator[dict[str, str]]:
    """SVG files as data: addresses. As a picture an SVG runs no script and loads nothing."""
    for path in sorted(folder.glob("*.svg")):
        with left_out(notes, path):
            size = _file(path).stat().st_size
            if size > PICTURE_BYTES or size * 4 / 3 > left:
                continue
            data = "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
            left -= len(data)
            yield {"name": path.stem, "data": data}


def profiles(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """What profiles came to, the newest first: workers, first operators of each role, faults."""
    folder = control_folder(environment) / "profiles"
    made: list[dict[str, Any]] = []
    left = PICTURES_BYTES
    for path in sorted(folder.glob("*/summary.json"), reverse=True) if folder.is_dir() else ():
        with left_out(notes, path):
            one = _profile(_json(path))
            pictures = list(_pictures(path.parent, left, notes))
            left -= sum(len(picture["data"]) for picture in pictures)
            name = path.parent.name
            made.append({**one, "name": name, "file": shown_path(path), "pictures": pictures})
        if len(made) == PROFILES:
            break
    return made


def _profile(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "began": utc(str(data["began"])),
        "workers": profile_summary.worker_rows(data),
        "roles": {name: profile_summary.operator_rows(one) for name, one in data["roles"].items()},
        "notes": [str(note) for note in data["notes"]],
        "faults": [str(fault) for fault in data["faults"]],
    }


def log_errors(
    environment: str, notes: list[Note], above: Optional[Path] = None
) -> Optional[dict[str, Any]]:
    """The summary of the logs that were fetched last, with what is known of each error."""
    folder = above or PROJECT / "build" / "logs"
    for path in sorted(folder.glob(f"{environment}-*/index.json"), reverse=True):
        with left_out(notes, path):
            data = _json(path)
            if data["environment"] == environment:
                return _errors(path, data)
    return None


def _errors(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    known = {cause.name: cause for cause in causes.catalogue()}
    for one in index.get("errors", []):
        kind = kinds.setdefault(one["kind"], _new_kind(one))
        kind["count"] += int(one["count"])
        kind["hosts"].append(str(one["host"]))
        if one["first"] and (kind["first"] is None or one["first"] < kind["first"]):
            kind["first"] = one["first"]
        kind["last"] = max(filter(None, [kind["last"], one["last"]]), default=None)
        cause = known.get(one["name"] or "")
        kind["cause"], kind["remedy"] = (cause.cause, cause.remedy) if cause else ("", "")
    failed = {h: a["error"] for h, a in index.get("hosts", {}).items() if a.get("error")}
    return {
        "file": shown_path(path),
        "fetched_at": utc(str(index.get("fetched_at") or "-")),
        "since": index.get("since"),
        "not_fetched": failed,
        "kinds": list(kinds.values())[:KINDS],
        "more": max(0, len(kinds) - KINDS),
    }


def _new_kind(one: Mapping[str, Any]) -> dict[str, Any]:
    example = {key: str(one["example"][key]) for key in ("file", "line", "text")}
    made = {"kind": str(one["kind"]), "count": 0, "hosts": [], "first": None, "last": None}
    return {**made, "example": example}


def audit(environment: str, notes: list[Note]) -> list[dict[str, Any]]:
    """Who changed the environment from here, when, and how it ended; the newest first."""
    path = control_folder(environment) / "audit.jsonl"
    lines: list[str] = []
    with left_out(notes, path):
        if path.exists():
            lines = _file(path).read_text(encoding="utf-8").splitlines()[-AUDIT:]
    found = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            found.append(
                {key: str(entry.get(key, "")) for key in ("time", "owner", "what", "result")}
            )
    return found
