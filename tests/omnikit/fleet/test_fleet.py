"""Inventories from plans, and playbooks run by the real ansible-playbook."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.config import config
from omnikit.fleet import fleet
from omnikit.topology.topology import make_plan

pytestmark = pytest.mark.slow


def inventory(environment: str, *assignments: str) -> dict:
    loaded = config.load(environment, assignments=assignments, environ={})
    return fleet.inventory(make_plan(loaded), loaded.settings, {})


def test_this_machine_needs_no_ssh_and_uses_our_python() -> None:
    host = inventory("local")["all"]["hosts"]["local"]
    assert host["ansible_connection"] == "local"
    assert host["ansible_python_interpreter"] == sys.executable


def test_ssh_hosts_carry_their_access() -> None:
    made = inventory(
        "2p1d",
        "hosts.p1={address: 192.0.2.77, user: ops, port: 2222, private_key: /k, jump: ops@bastion}",
    )
    host = made["all"]["hosts"]["p1"]
    assert host["ansible_host"] == "192.0.2.77"
    assert host["ansible_user"] == "ops"
    assert host["ansible_port"] == 2222
    assert host["ansible_ssh_private_key_file"] == "/k"
    assert "ProxyJump=ops@bastion" in host["ansible_ssh_common_args"]
    assert list(made["all"]["children"]["omnikit_proxy"]["hosts"]) == ["p0"]


def test_a_password_is_not_in_what_ansible_reads() -> None:
    given = "hosts.p1={address: 192.0.2.77, password: {variable: FLEET_PASSWORD}}"
    loaded = config.load("2p1d", assignments=[given], environ={})
    made = fleet.inventory(make_plan(loaded), loaded.settings, {})
    assert "assword" not in json.dumps(made)


def outcome(event: str, **fields) -> fleet.Outcome:
    base = {"event": event, "host": "h1", "task": "Start", "stdout": "", "stderr": "", "msg": ""}
    made = fleet.Outcome(code=2)
    made.failures.append({**base, **fields})
    return made


def test_a_failure_names_host_step_and_cause() -> None:
    with pytest.raises(ActionError) as caught:
        fleet.raise_failures(outcome("failed", rc=1, stderr="error: the disk is full"))
    text = str(caught.value)
    assert "h1" in text and "Start" in text and "the disk is full" in text


def test_misuse_on_a_host_stays_misuse() -> None:
    with pytest.raises(InputError):
        fleet.raise_failures(outcome("failed", rc=2, stderr="error: no such thing"))


def test_a_host_without_python_says_what_brings_one() -> None:
    said = "/bin/sh: 1: python3: not found"
    with pytest.raises(InputError, match=r"install python3; .*: hosts\.h1\.python"):
        fleet.raise_failures(outcome("failed", rc=127, stderr=said))


def test_an_unreachable_host_says_what_tells_why() -> None:
    with pytest.raises(ActionError, match="invoke check-env"):
        fleet.raise_failures(outcome("unreachable", msg="Connection refused"))


@pytest.mark.parametrize(
    "shell", [{}, {"LC_ALL": "C"}, {"ANSIBLE_STDOUT_CALLBACK": "json"}, {"LANG": "zh_CN.GB18030"}]
)
def test_a_playbook_run_yields_events_results_and_recap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: dict[str, str]
) -> None:
    """However a user's shell is set."""
    monkeypatch.delenv("LC_ALL")
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    loaded = config.load("local", assignments=[f"paths.work_dir={tmp_path}/w"], environ={})
    made = fleet.inventory(make_plan(loaded), loaded.settings, {})
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(made))
    seen: list[str] = []
    (tmp_path / "code.pyz").write_bytes(b"not looked at where nothing was deployed")
    done = fleet.play(
        "stop_server.yml",
        path,
        loaded.settings,
        lambda e: seen.append(e["event"]),
        variables={"omnikit_code": str(tmp_path / "code.pyz")},
    )
    assert done.code == 0
    assert seen[0] == "task" and seen[-1] == "recap"
    assert done.json("Stop what was started") == {}  # never deployed to: there is nothing to end
    assert done.recap["local"]["failures"] == 0


def test_a_broken_playbook_is_an_error_with_ansibles_words(tmp_path: Path) -> None:
    loaded = config.load("local", environ={})
    path = tmp_path / "inventory.json"
    path.write_text("{}")
    with pytest.raises(ActionError, match="ansible-playbook ended"):
        fleet.play("no_such_playbook.yml", path, loaded.settings)
