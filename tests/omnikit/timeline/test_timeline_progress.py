"""Progress lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnikit.timeline.progress import Progress, Timeline


def waiting(**states: str) -> dict:
    nodes = [
        {
            "node": name,
            "state": state,
            "started_at": 100.0,
            "ready_at": 142.0 if state == "ready" else None,
            "servers": [{"state": state}],
        }
        for name, state in states.items()
    ]
    return {
        "event": "retry",
        "host": "local",
        "task": "Wait",
        "stdout": json.dumps({"verdict": "starting", "nodes": nodes}),
    }


def test_a_change_is_told_once(capsys) -> None:
    progress = Progress(quiet_s=1000)
    for _ in range(3):
        progress.on_event(waiting(p0="starting", d0="starting"))
    progress.on_event(waiting(p0="ready", d0="starting"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "p0 ready 42 s" in lines[1] and "d0 starting" in lines[1]


def test_silence_is_broken_now_and_then(capsys) -> None:
    progress = Progress(quiet_s=0)
    for _ in range(3):
        progress.on_event(waiting(p0="starting"))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_what_was_done_is_told_with_its_host(capsys) -> None:
    Progress().on_event(
        {"event": "ok", "host": "h1", "task": "t", "stdout": '{"done": {"p0": "restarted"}}'}
    )
    assert "p0: restarted on h1" in capsys.readouterr().err


def test_output_that_is_no_json_is_ignored(capsys) -> None:
    Progress().on_event({"event": "ok", "host": "h1", "task": "t", "stdout": "plain"})
    assert capsys.readouterr().err == ""


def test_starts_of_servers_are_written_down_once_and_only_new_ones(tmp_path: Path) -> None:
    progress = Progress(timeline=Timeline(tmp_path / "t.jsonl"))
    now = progress.began_at
    for node, ready_at in (("p0", now + 42), ("p1", now - 5)):
        event = waiting(**{node: "ready"})
        data = json.loads(event["stdout"])
        data["nodes"][0].update(started_at=ready_at - 40, ready_at=ready_at)
        for _ in range(2):
            progress.on_event({**event, "stdout": json.dumps(data)})
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["kind"] == "engine"]
    assert [(one["node"], one["host"], one["result"]) for one in found] == [
        ("p0", "local", "ready")
    ]
    assert found[0]["end"] - found[0]["start"] == pytest.approx(40)


@pytest.mark.parametrize("behind", [3600.0, -3600.0, 2.0])
@pytest.mark.parametrize("state", ["ready", "failed"])
def test_a_host_whose_clock_is_wrong_is_put_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], behind: float, state: str
) -> None:
    progress = Progress(timeline=Timeline(tmp_path / "t.jsonl"))
    here = progress.began_at + 60
    there = here - behind
    event = {**waiting(p0=state), "time": here}
    data = json.loads(event["stdout"])
    ready_at = there if state == "ready" else None
    data["nodes"][0].update(started_at=there - 40, ready_at=ready_at)
    progress.on_event({**event, "stdout": json.dumps({**data, "time": there})})
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    [found] = [line for line in lines if line["kind"] == "engine"]
    known = behind if abs(behind) > 5 else 0.0  # what an answer needs on its way is no offset
    assert found["behind"] == pytest.approx(known)
    assert found["end"] == pytest.approx(there + known)
    assert found["end"] - found["start"] == pytest.approx(40)
    assert f"p0 {state} 40 s" in capsys.readouterr().err
