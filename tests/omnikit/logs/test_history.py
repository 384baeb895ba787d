"""The history of an environment: of all hosts, by time, with those that say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import history as script
import pytest

from hostkit.base import lock
from hostkit.base.errors import InputError
from hostkit.nodes.history import Teller
from omnikit.config import config
from omnikit.logs import history


def event(at: str, host: str, what: str, **more: Any) -> dict[str, Any]:
    return {"time": f"2026-11-29T{at}Z", "host": host, "what": what, **more}


def test_one_command_on_several_hosts_is_one_event() -> None:
    by = {"by": "ann@b", "result": "ok"}
    found = history.merged(
        [
            event("02:00:09", "h1", "deploy of x", **by),
            event("02:00:05.100", "h0", "ready", node="p0"),
            event("02:00:10", "h0", "deploy of x", **by),
            event("03:00:00", "h0", "deploy of x", **by),
        ]
    )
    assert [(one["what"], one["hosts"]) for one in found] == [
        *(("ready", ["h0"]), ("deploy of x", ["h1", "h0"]), ("deploy of x", ["h0"])),
    ]
    text = history.History("x", found, {"h2": "it cannot be reached"}, {"h0": 7}).text
    assert "deploy of x: ok" in text and "by ann@b" in text
    assert "h2 could not be asked: it cannot be reached" in text
    assert "h0: 7 older events were left out" in text


def told(folder: Path) -> list[str]:
    """Options of an environment on this machine where something has happened."""
    for environment, name in (("single", "p0"), ("another", "p1"), ("single", "c0")):
        host = {"work_dir": str(folder), "environment": environment, "host": "local"}
        Teller(host, {"name": name, "role": "prefill"}).tell("died", f"{name} ended")
    lock.audit(folder, "ann@b", "stop of single", "ok")
    return ["-e", "tests/environments/single.yaml", "--set", f"paths.work_dir={folder}"]


def test_the_task_prints_all_of_it_or_what_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = told(tmp_path)
    assert script.main(options) == 0
    text = capsys.readouterr().out
    assert "p0 ended" in text and "stop of single: ok" in text
    assert "p1" not in text  # of another environment in the same folder
    assert script.main([*options, "--instance", "c0", "--since", "1h", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["node"] for one in found["events"]] == ["c0"] and found["silent"] == {}
    loaded = config.load("tests/environments/single.yaml", environ={})
    with pytest.raises(InputError, match="no host 'h7'"):
        history.collect(loaded, ["h7"], [], None)


@pytest.mark.slow
def test_a_host_that_cannot_be_reached_is_named_and_the_others_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = [
        "hosts.local.address=192.0.2.1",
        "hosts.away={address: 198.51.100.9, ssh_options: [ProxyCommand=false]}",
        *("topology.proxy=away", "model.path=/models/tiny", "engine.venv=/engine"),
    ]
    code = script.main([*told(tmp_path), *(f"--set={one}" for one in away)])
    text = capsys.readouterr().out
    assert code == 1
    assert "p0 ended" in text and "away could not be asked: " in text
