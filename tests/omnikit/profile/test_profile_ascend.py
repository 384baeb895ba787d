"""Traces of Ascend's profiler: its tables, and folders that cannot be relied on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omnikit.profile.trace import read_ascend as read

FACTS = Path(__file__).parents[2] / "facts" / "profile"
RECORDED = FACTS / "host_4711_20260101_ascend_pt"
UNMARKED = FACTS / "host_4712_20260101_ascend_pt"  # nobody called profiler.step(), as in omni-infer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recorded form."""
    return Path(shutil.copytree(RECORDED, tmp_path / RECORDED.name))


def test_steps_and_operators_by_type(folder: Path) -> None:
    found = read(folder, "p0/x")
    assert found.faults == []
    assert [(s.name, s.span_us, s.communication_us, s.gap_us) for s in found.steps] == [
        ("1", 1000.0, 200.0, 100.0),
        ("2", 900.0, 150.0, 50.0),
    ]
    own = {o.name: (o.calls, round(o.self_us, 3)) for o in found.operators.values()}
    assert own == {
        "MatMulV2": (2, 900.5),
        "hcom_allReduce_": (1, 200.25),
        "aclnnInplaceCopy": (1, 3.0),
    }
    assert found.operators["hcom_allReduce_"].communication


def test_a_row_without_a_step_is_the_whole_recording() -> None:
    found = read(UNMARKED, "d0/x")
    assert found.faults == [] and found.marked == []
    [row] = found.steps
    assert row.whole and (row.span_us, row.communication_us, row.gap_us) == (4000.0, 350.0, 2250.0)


def test_collectives_come_from_their_own_file_where_the_operators_lack_them(folder: Path) -> None:
    kernels = folder / "ASCEND_PROFILER_OUTPUT" / "kernel_details.csv"
    kept = [line for line in kernels.read_text().splitlines() if "hcom" not in line]
    kernels.write_text("\n".join(kept))
    found = read(folder, "x")
    assert found.operators["hcom_allReduce"].self_us == pytest.approx(350.0)
    assert found.operators["hcom_allReduce"].calls == 2


def test_a_folder_that_was_not_analysed_says_how(folder: Path) -> None:
    shutil.rmtree(folder / "ASCEND_PROFILER_OUTPUT")
    [fault] = read(folder, "x").faults
    assert "was not analysed" in fault and "analyse(" in fault


@pytest.mark.parametrize("name", ["kernel_details.csv", "step_trace_time.csv", "trace_view.json"])
def test_a_missing_file_is_said(folder: Path, name: str) -> None:
    (folder / "ASCEND_PROFILER_OUTPUT" / name).unlink()
    assert read(folder, "x").faults == [f"has no {name}"]


def test_damaged_files_are_said(folder: Path) -> None:
    there = folder / "ASCEND_PROFILER_OUTPUT"
    timeline = there / "trace_view.json"
    timeline.write_bytes(timeline.read_bytes()[:-5])
    assert "trace_view.json is cut off" in read(folder, "x").faults[0]
    timeline.write_text("[]")
    (there / "kernel_details.csv").write_text("Name,Type,Duration(us)\nMatMul,MatMulV2,1\nx,y\n")
    assert "cannot be read: ValueError" in read(folder, "x").faults[0]
    (there / "kernel_details.csv").write_text("Name,Type,Duration(us)\n")
    (there / "communication.json").write_text("{}")
    assert "has no operators" in read(folder, "x").faults[0]


def test_a_large_timeline_is_judged_by_its_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline = folder / "ASCEND_PROFILER_OUTPUT" / "trace_view.json"
    timeline.write_text(json.dumps([{"ph": "X"}] * 100))
    monkeypatch.setattr("omnikit.profile.trace._WHOLE", 10)
    assert read(folder, "x").faults == []
    timeline.write_bytes(timeline.read_bytes()[:-1])
    assert read(folder, "x").faults == ["trace_view.json is cut off: it ends with b'}'"]
