"""Questions to the hosts of a deployment: answers and faults as of a playbook with one task."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import ActionError
from omnikit.config import config
from omnikit.fleet import fleet
from omnikit.prepare import look
from omnikit.prepare.deployment import Deployment, prepare


def deployment(folder: Path, *assignments: str) -> Deployment:
    """Of one server on this machine, written below folder."""
    given = [f"paths.work_dir={folder}/host", f"model.path={folder}", *assignments]
    (folder / "config.json").write_text("{}")
    loaded = config.load("tests/environments/single.yaml", assignments=given, environ={})
    made = dataclasses.replace(prepare(loaded, {}, {"kind": "nginx-lua"}, {}), folder=folder)
    made.write()
    return made


def test_this_machine_answers_itself_and_says_whether_the_archive_is_new(tmp_path: Path) -> None:
    made = deployment(tmp_path)
    seen: list[dict[str, Any]] = []
    first = look.ask(made, "look", "Look", seen.append)
    again = look.ask(made, "look", "Look")
    (host,) = (host.name for host in made.plan.hosts)
    assert first.failures == again.failures == []
    assert set(first.json("Look")[host]["actions"].values()) == {"start"}
    assert [(one["event"], one.get("changed")) for one in seen] == [("task", None), ("ok", True)]
    assert not again.results["Look"][host]["changed"]


def test_an_answer_that_is_an_error_names_host_and_question(tmp_path: Path) -> None:
    made = deployment(tmp_path)
    (host,) = (host.name for host in made.plan.hosts)
    Path(look.asked(made, made.plan.hosts[0])).mkdir(parents=True)
    outcome = look.ask(made, "look", "Look")
    with pytest.raises(ActionError, match=f"(?s)host {host}, step 'Look'.*cannot be written"):
        fleet.raise_failures(outcome)


@pytest.mark.needs("ssh")
def test_a_host_that_cannot_be_reached_is_told_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        port = taken.getsockname()[1]
        there = {"address": "127.0.0.1", "port": port, "connection": "ssh", "user": "root"}
        where = f"hosts.local={json.dumps(there)}"
        made = deployment(tmp_path, where, "engine.venv=/opt/engine")
        outcome = look.ask(made, "look", "Look")
    (event,) = outcome.failures
    assert event["event"] == "unreachable"
    text = str(fleet.failure(event))
    assert "no SSH server answers at this port" in text and text.count("cannot be") == 1
    assert f"-p {port}" in text
