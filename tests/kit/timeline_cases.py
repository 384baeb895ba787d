"""A recorded deployment for tests: two hosts, engines of which one is slow, a proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGAN = 1_795_450_000.0
SPANS = (
    ("set up", "here", 0.0, 1.0, "ok"),
    ("Start the servers", "p0", 3.0, 4.0, "changed"),
    ("Start the servers", "d0", 3.0, 5.0, "changed"),
    ("Wait for the servers", "p0", 5.0, 45.0, "ok"),
    ("Wait for the servers", "d0", 5.0, 85.0, "ok"),
    ("Start the proxy", "p0", 85.0, 88.0, "changed"),
    ("real requests", "here", 90.0, 92.0, "ok"),
)
ENGINES = (("p0", "p0", 4.0, 44.0), ("d0", "d0", 4.5, 84.0))


def entries(spans: Any = SPANS, error: str = "", ended: bool = True) -> list[dict[str, Any]]:
    """The lines of a record as data."""
    made: list[dict[str, Any]] = [
        {"kind": "command", "time": BEGAN, "what": "deploy", "owner": "ann@bastion:/opt/kit"}
    ]
    for step, host, start, end, result in spans:
        span = {"step": step, "host": host, "start": BEGAN + start, "end": BEGAN + end}
        made.append({"kind": "span", "time": BEGAN + end, **span, "result": result})
    for node, host, start, end in ENGINES:
        times = {"start": BEGAN + start, "end": BEGAN + end}
        engine = {"kind": "engine", "time": BEGAN + end, "node": node, "host": host}
        made.append({**engine, **times, "result": "ready"})
    if error:
        made.append({"kind": "failed", "time": BEGAN + 92.0, "error": error, "exit_code": 1})
    elif ended:
        made.append({"kind": "result", "time": BEGAN + 92.0, "ready": True})
    return made


def write(folder: Path, name: str = "20261124T000640Z", **how: Any) -> Path:
    """A record's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in entries(**how)))
    return path
