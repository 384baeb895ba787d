"""What a stand-in for the engine does when it is profiled: a trace in the form of PyTorch's.

STAND_IN_PROFILE: "none", it has no such endpoints; "cut", its trace ends in the middle.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any, Mapping, Optional

BEGAN = [0]


def switch(path: str, profiler: Optional[Mapping[str, Any]], steps: int) -> int:
    """Answer /start_profile or /stop_profile, which writes the trace; the HTTP status.

    steps: that the engine has done so far.
    """
    how = os.environ.get("STAND_IN_PROFILE", "")
    if profiler is None or how == "none":
        return 404
    if path == "/start_profile":
        BEGAN[0] = steps
    else:
        data = gzip.compress(json.dumps(trace(steps - BEGAN[0])).encode())
        folder = Path(profiler["torch_profiler_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"rank0.{time.time_ns()}.pt.trace.json.gz"
        file.write_bytes(data[: len(data) // 2] if how == "cut" else data)
    return 200


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    """An event that lasts; times in microseconds."""
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}


def trace(steps: int) -> dict[str, Any]:
    """Steps of 100 us, 20 us apart. In each: 60 us aten::linear, 50 of them in aten::addmm; then
    20 us c10d::allreduce_; then nothing.
    """
    events = []
    for step in range(steps):
        at = 1000.0 + 120 * step
        events += [
            event("user_annotation", f"execute_context_0(0)_generation_1({step})", at, 100),
            event("cpu_op", "aten::linear", at, 60),
            event("cpu_op", "aten::addmm", at + 5, 50),
            event("cpu_op", "c10d::allreduce_", at + 60, 20),
        ]
    return {"schemaVersion": 1, "traceEvents": events}
