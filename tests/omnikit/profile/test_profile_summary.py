"""What traces come to: sums by role, faults, and the table."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

from settings_file import FLEET, plan
from stand_in_profile import trace

from omnikit.profile import summary
from omnikit.profile.summary import as_text, build, read, workers_of

FACTS = Path(__file__).parents[2] / "facts" / "profile"
ASCEND = FACTS / "host_4711_20260101_ascend_pt"
UNMARKED = FACTS / "host_4712_20260101_ascend_pt"


def put(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True)
    data = gzip.compress(json.dumps(trace(steps)).encode())
    (folder / "rank0.1.pt.trace.json.gz").write_bytes(data)
    (folder / "rank0.profiler_out.txt").write_text("no trace")


def test_sums_by_role_and_worker(tmp_path: Path) -> None:
    nodes = {node.name: node for node in plan(tmp_path, FLEET).nodes}
    put(tmp_path / "p0", 5)
    put(tmp_path / "p1", 2)
    shutil.copytree(ASCEND, tmp_path / "d0" / ASCEND.name)
    found = [read(tmp_path, nodes[name], 1, 3) for name in ("p0", "p1", "d0")]
    made = build(found, 3, {"environment": "x"})
    assert made["environment"] == "x" and made["faults"] == []
    assert made["notes"] == [
        f"{name} has 2 of 3 steps; for more, more requests: --set profiling.requests=N"
        for name in ("p1/rank0.1.pt.trace.json.gz", f"d0/{ASCEND.name}")
    ]
    prefill = made["roles"]["prefill"]
    assert (prefill["step_count"], prefill["step_ms"]) == (5, 0.1)
    assert (prefill["communication_share"], prefill["gap_share"]) == (0.2, 0.2)
    top = prefill["operators"][0]
    assert top == {
        "name": "aten::addmm",
        "calls": 5,
        "self_ms": 0.25,
        "share": 0.625,
        "communication": False,
    }
    decode = made["roles"]["decode"]
    assert decode["communication_share"] == round(350 / 1900, 4)
    assert decode["gap_share"] == round(150 / 1900, 4)
    json.dumps(made)
    text = as_text(made)
    assert "p0      prefill  3      0.10     20.0 %         20.0 %  0.04" in text
    assert "decode: operator" in text and "note: p1/" in text


def test_a_recording_without_marked_steps_has_shares_but_no_steps(tmp_path: Path) -> None:
    d0 = plan(tmp_path, FLEET).nodes[2]
    shutil.copytree(UNMARKED, tmp_path / "d0" / UNMARKED.name)
    made = build([read(tmp_path, d0, 1, 5)], 5, {})
    assert made["faults"] == [] and made["notes"] == [
        "the profiler did not mark steps: figures are of the whole recording, with idle time"
    ]
    sums = made["roles"]["decode"]
    assert (sums["step_count"], sums["step_ms"], sums["idle_between_ms"]) == (0, None, None)
    assert (sums["communication_share"], sums["gap_share"]) == (0.0875, 0.5625)
    assert made["instances"][0]["traces"][0]["steps"] == []
    text = as_text(made)
    assert "d0      decode  -      -        8.8 %          56.2 %  -" in text
    assert "note: the profiler did not mark steps" in text


def test_missing_and_broken_traces_are_faults_and_divide_nothing_by_zero(tmp_path: Path) -> None:
    p0, p1, *_ = plan(tmp_path, FLEET).nodes
    put(tmp_path / "p0", 1)
    [file] = (tmp_path / "p0").glob("*.gz")
    file.write_bytes(file.read_bytes()[:40])
    made = build([read(tmp_path, p0, 2, 5), read(tmp_path, p1, 1, 5)], 5, {})
    assert made["faults"][0] == "p0: 1 of 2 workers left a trace"
    assert "is cut off or damaged" in made["faults"][1]
    assert made["faults"][2] == "p1: 0 of 1 workers left a trace"
    sums = made["roles"]["prefill"]
    assert sums["step_ms"] is sums["gap_share"] is sums["communication_share"] is None
    text = as_text(made)
    assert "not complete: p1: 0 of 1" in text and "p0      prefill  0      -" in text


def test_workers_are_counted_by_devices_or_servers(tmp_path: Path) -> None:
    p0, *_ = plan(tmp_path, FLEET).nodes
    assert workers_of(p0) == 16
    assert workers_of(replace(p0, devices=(), tensor_parallel=2)) == 2
    assert summary.FORMAT == 1
