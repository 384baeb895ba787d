"""Where the time of a command went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnikit.timeline.progress import HERE, Span, Timeline
from omnikit.timeline.records import read


def event(kind: str, task: str, at: float, **fields: object) -> dict:
    return {"event": kind, "task": task, "time": at, **fields}


def test_a_task_is_a_span_on_each_host() -> None:
    line = Timeline()
    line.on_event(event("task", "Start", 10.0))
    line.on_event(event("ok", "Start", 12.5, host="p0", changed=True))
    line.on_event(event("failed", "Start", 14.0, host="p1"))
    assert line.spans == [
        Span("Start", "p0", 10.0, 12.5, "changed"),
        Span("Start", "p1", 10.0, 14.0, "failed"),
    ]


def test_a_step_that_fails_is_kept_as_failed(tmp_path: Path) -> None:
    line = Timeline(tmp_path / "new" / "t.jsonl")
    with line.step("look"):
        pass
    with pytest.raises(ValueError, match="x"), line.step("start"):
        raise ValueError("x")
    found = read(tmp_path / "new" / "t.jsonl").spans
    assert [(s.step, s.host, s.result) for s in found] == [
        ("look", HERE, "ok"),
        ("start", HERE, "failed"),
    ]


def test_the_table_has_a_row_per_step_and_adds_up() -> None:
    line = Timeline()
    for start, host in ((0.0, "p0"), (5.0, "p0"), (0.0, "d0")):
        line.add(Span("Wait", host, start, start + 1.25, "ok"))
    line.add(Span("Look", "p0", 0, 1, "ok"))
    assert line.as_text().splitlines() == [
        "seconds  p0   d0",
        "Wait     2.5  1.2",
        "Look     1.0  -",
    ]


def test_other_entries_of_the_file_are_not_spans(tmp_path: Path) -> None:
    line = Timeline(tmp_path / "t.jsonl")
    line.write("said", text="p0: started")
    line.add(Span("Look", "p0", 0, 1, "ok"))
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 2
    assert list(read(tmp_path / "t.jsonl").spans) == line.spans
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])["text"] == "p0: started"


def test_many_hosts_are_rows() -> None:
    line = Timeline()
    for number in range(20):
        line.add(Span("Wait", f"p{number}", 0.0, 1.0, "ok"))
    shown = line.as_text().splitlines()
    assert shown[0] == "seconds  Wait" and shown[1] == "p0       1.0" and len(shown) == 21


def test_lines_are_shown_as_they_come_when_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Timeline(tmp_path / "t.jsonl", shown=True)
    line.write("said", text="hello")
    line.add(Span("Look", "p0", 0, 1, "ok"))
    assert capsys.readouterr().out == (tmp_path / "t.jsonl").read_text()
