"""scripts/timeline.py on records of an environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import timeline
from timeline_cases import write

from omnikit.timeline import records


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records in a folder of the test's own."""
    monkeypatch.setattr(records, "control_folder", lambda name: tmp_path / name)


def test_the_newest_record_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write(records.folder("local"), "20261101T000000Z", error="old")
    write(records.folder("local"), "20261102T000000Z")
    assert timeline.main(["-e", "local"]) == 0
    said = capsys.readouterr().out
    assert "deploy of local" in said and "ended well" in said and "critical path" in said


def test_json_the_list_and_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(records.folder("local"), "20261101T000000Z")
    (records.folder("local") / "20261102T000000Z.jsonl").write_text("")
    words = ["-e", "local", "--record", "20261101"]
    trace = tmp_path / "t.json"
    assert timeline.main([*words, "--json", "--trace", str(trace)]) == 0
    assert json.loads(capsys.readouterr().out)["record"] == "20261101T000000Z"
    assert json.loads(trace.read_text())["traceEvents"]
    assert timeline.main(["-e", "local", "--list"]) == 0
    said = capsys.readouterr()
    assert "20261101T000000Z  deploy" in said.out and "left out: 20261102" in said.err
    assert timeline.main(["-e", "local", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert timeline.main(["-e", "local"]) == 2
    assert "no deployment of local was recorded here" in capsys.readouterr().err
    assert timeline.main(["-e", "local", "--list"]) == 0
    assert capsys.readouterr().out == "nothing was deployed yet\n"
    with pytest.raises(SystemExit) as raised:
        timeline.main(["--top", "0"])
    assert raised.value.code == 2


def test_a_damaged_record_does_not_hide_an_older_one_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(records.folder("local"), "20261101T000000Z")
    damaged = records.folder("local") / "20261102T000000Z.jsonl"
    damaged.write_text('{"kind": "command", "time": "x"}\n')
    assert timeline.main(["-e", "local"]) == 0
    said = capsys.readouterr()
    assert "ended well" in said.out and "left out: 20261102T000000Z.jsonl:1" in said.err
    assert timeline.main(["-e", "local", "--record", "20261102"]) == 2
    assert f"{damaged}:1: this line is none of a record: 'time' is" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", ".", "/", "~", "link", "pipe"])
def test_a_trace_goes_into_a_file_or_nowhere(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(records.folder("local"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    assert timeline.main(["-e", "local", "--trace", text]) == 2
    said = capsys.readouterr()
    assert said.out == "" and f"error: --trace {text!r}: " in said.err
    assert "What to do: name a file, new or to be replaced: --trace FILE" in said.err
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()
    assert sorted(tmp_path.iterdir()) == before


def test_a_trace_replaces_the_file_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(records.folder("local"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "latest.json").symlink_to("old.json")
    assert timeline.main(["-e", "local", "--trace", "~/latest.json"]) == 0
    assert (tmp_path / "latest.json").is_symlink()
    assert json.loads((tmp_path / "old.json").read_text())["traceEvents"]
