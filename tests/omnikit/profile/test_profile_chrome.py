"""Traces of PyTorch's profiler: steps, operators, and files that cannot be relied on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from stand_in_profile import event, trace

from omnikit.profile.trace import read_chrome as read


def written(folder: Path, data: Any, name: str = "rank0.1.pt.trace.json.gz") -> Path:
    path = folder / name
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["rank0.1.pt.trace.json.gz", "rank0.1.pt.trace.json"])
def test_steps_and_operators(tmp_path: Path, name: str) -> None:
    found = read(written(tmp_path, trace(3), name), "p0/x")
    assert found.faults == [] and found.file == "p0/x"
    assert [s.name for s in found.steps][1:] == [
        "execute_context_0(0)_generation_1(1)",
        "execute_context_0(0)_generation_1(2)",
    ]
    last = found.steps[2]
    assert (last.span_us, last.communication_us, last.gap_us) == (100, 20, 20)
    assert [s.idle_before_us for s in found.steps] == [0, 20, 20]
    own = {o.name: (o.calls, o.self_us) for o in found.operators.values()}
    assert own == {"aten::linear": (3, 30), "aten::addmm": (3, 150), "c10d::allreduce_": (3, 60)}


def test_only_so_many_steps_count(tmp_path: Path) -> None:
    found = read(written(tmp_path, trace(9)), "x", 2)
    assert len(found.steps) == 2 and found.operators["aten::addmm"].calls == 2


def test_steps_without_a_token_do_not_count(tmp_path: Path) -> None:
    data = trace(1)
    empty = event("user_annotation", "execute_context_0(0)_generation_0(0)", 900, 10)
    data["traceEvents"].append(empty)
    assert len(read(written(tmp_path, data), "x", 1).steps) == 1


def test_a_trace_without_marks_is_one_recording(tmp_path: Path) -> None:
    events = [event("cpu_op", "aten::mul", 10, 4), event("cpu_op", "aten::mul", 20, 6)]
    [step] = read(written(tmp_path, events), "x", 5).steps
    assert step.whole and (step.name, step.span_us, step.gap_us) == ("all", 16, 6)


def test_on_an_accelerator_its_kernels_count(tmp_path: Path) -> None:
    events = [event("cpu_op", "aten::mul", 0, 90)]
    for number, begin in enumerate((0, 100)):
        name = f"execute_context_0(0)_generation_1({number})"
        events.append(event("user_annotation", name, begin, 50))
        # Ends after the CPU has gone on, with 10 us of nothing, and moves data while it computes.
        events.append(event("kernel", "gemm", begin + 30, 40, tid=7))
        events.append(event("kernel", "ncclAllReduce", begin + 60, 30, tid=8))
    found = read(written(tmp_path, {"traceEvents": events}), "x")
    assert set(found.operators) == {"gemm", "ncclAllReduce"}
    first, second = found.steps
    assert (first.span_us, first.communication_us, first.gap_us) == (60, 20, 0)
    assert second.idle_before_us == 40


def test_what_cannot_be_relied_on_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, trace(2))
    path.write_bytes(path.read_bytes()[:100])
    assert "is cut off or damaged" in read(path, "x").faults[0]
    path.write_bytes(b"no gzip")
    assert "is cut off or damaged" in read(path, "x").faults[0]
    plain = tmp_path / "a.trace.json"
    for text in ("", '{"traceEvents": [', "{}", "7", '["x"]'):
        plain.write_text(text)
        assert "is no Chrome trace" in read(plain, "x").faults[0], text
    plain.write_text('{"traceEvents": []}')
    assert "has no operators in it" in read(plain, "x").faults[0]
    assert "damaged" in read(tmp_path / "none", "x").faults[0]
