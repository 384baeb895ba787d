"""The trace holds to Chrome's Trace Event Format, which Perfetto reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timeline_cases
from timeline_cases import write

from hostkit.base.errors import InputError
from omnikit.timeline import records
from omnikit.timeline.progress import Span
from omnikit.timeline.records import read


def test_hosts_are_processes_and_steps_complete_events(tmp_path: Path) -> None:
    made = records.trace(read(write(tmp_path)))
    events = made["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(names.values()) == ["host here", "host p0", "host d0"]
    whole = [e for e in events if e["ph"] == "X"]
    assert len(whole) == 7 + 2
    wait = next(e for e in whole if e["name"] == "Wait for the servers" and e["dur"] == 80_000_000)
    assert (names[wait["pid"]], wait["ts"], wait["args"]["result"]) == ("host d0", 5_000_000, "ok")
    server = next(e for e in whole if e["cat"] == "server")
    assert (server["name"], server["dur"]) == ("p0 starts", 40_000_000)


def test_every_event_has_what_the_format_asks_for(tmp_path: Path) -> None:
    made = json.loads(json.dumps(records.trace(read(write(tmp_path)))))
    assert set(made) == {"traceEvents", "displayTimeUnit", "otherData"}
    for event in made["traceEvents"]:
        assert event["ph"] in ("X", "M") and event["name"]
        assert all(type(event[key]) is int for key in ("pid", "tid", "ts"))
        assert event["ph"] == "M" or (type(event["dur"]) is int and event["dur"] >= 0)


def test_steps_that_overlap_are_in_rows_of_their_own() -> None:
    spans = [Span("a", "h", 0, 10, "ok"), Span("b", "h", 5, 15, "ok"), Span("c", "h", 10, 12, "ok")]
    assert [[s.step for s in row] for row in records.lanes(spans)] == [["a", "c"], ["b"]]


def test_it_is_written_whole_beside_its_record(tmp_path: Path) -> None:
    record = write(tmp_path)
    records.write_beside(record)
    assert json.loads(records.path_beside(record).read_text())["traceEvents"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20261124T000640Z.jsonl",
        "20261124T000640Z.trace.json",
    ]


def test_what_cannot_be_traced_is_no_traceback(tmp_path: Path) -> None:
    empty = tmp_path / "x.jsonl"
    empty.write_text("")
    records.write_beside(empty)
    assert list(tmp_path.iterdir()) == [empty]
    with pytest.raises(InputError, match="cannot be written"):
        records.write_to(read(write(tmp_path)), tmp_path / "no" / "such" / "t.json")


def test_no_event_begins_before_the_command_and_what_did_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = (("p0", "p0", -3600.0, -3500.0), ("d0", "d0", -10.0, 84.0))
    monkeypatch.setattr(timeline_cases, "ENGINES", engines)
    path = write(tmp_path)
    path.write_text(path.read_text().replace('"node": "p0"', '"node": "p0", "behind": 3600.0004'))
    whole = [e for e in records.trace(read(path))["traceEvents"] if e["ph"] == "X"]
    assert min(e["ts"] for e in whole) == 0
    first, second = (e for e in whole if e["cat"] == "server")
    assert (first["dur"], first["args"]["began_s"]) == (100_000_000, -3600.0)
    assert first["args"]["host_clock_behind_s"] == 3600.0
    assert (second["dur"], second["args"]["began_s"]) == (84_000_000, -10.0)
    assert "began_s" not in whole[0]["args"]
