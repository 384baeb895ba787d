"""All hosts asked side by side: real SSH servers, and hosts that cannot be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from ssh_hosts import SshHost, address_on_loopback, make_key, ssh_host

from omnikit.checks import environment as checks_environment
from omnikit.config import config
from omnikit.fleet import jobs
from omnikit.topology.topology import make_plan

P0, P1, D0 = "198.51.100.81", "198.51.100.82", "198.51.100.83"


def environment(folder: Path, known_hosts: Path, hosts: str, topology: str) -> str:
    path = folder / "three.yaml"
    path.write_text(
        "profile: {engine: cpu, model: tiny-qwen2}\n"
        f"paths: {{work_dir: {folder}/work}}\n"
        f"model: {{path: {folder}/model}}\n"
        f"engine: {{venv: null, requirements: null}}\n"
        f"keys: {{known_hosts: {known_hosts}}}\n"
        "checks: {timeout_s: 5, write_mib_s: 0}\n"
        "fleet: {connect_timeout_s: 5}\n"
        f"hosts:\n{hosts}topology: {topology}\n"
    )
    return str(path)


def checked(path: str, *hosts: str) -> checks_environment.Checked:
    found = config.load(path, environ={})
    plan = make_plan(found)
    return checks_environment.run(found, plan, hosts or [host.name for host in plan.hosts])


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in entries}


@pytest.fixture(autouse=True)
def no_connections_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection kept from the test before would hide that a host's key has changed."""
    monkeypatch.setenv("ANSIBLE_SSH_ARGS", "-o ControlMaster=no -o StrictHostKeyChecking=yes")


@pytest.fixture
def one_host(tmp_path: Path) -> Iterator[SshHost]:
    with ssh_host(tmp_path / "p0", P0, make_key(tmp_path / "key"), {}) as host:
        yield host


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["another host key", "no host key", "another user key"])
def test_a_host_that_cannot_be_logged_in_to_is_a_failed_check(
    tmp_path: Path, one_host: SshHost, fault: str, capsys: Any
) -> None:
    known = one_host.known_hosts
    if fault == "another host key":
        other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
        known.write_text(f"[{P0}]:{one_host.port} {other}")
    elif fault == "no host key":
        known.write_text("")
    else:
        entry = one_host.entry().replace(str(one_host.user_key), str(make_key(tmp_path / "other")))
    if fault != "another user key":
        entry = one_host.entry()
    path = environment(tmp_path, known, f"  p0: {entry}\n", "{colocated: [{hosts: [p0]}]}")
    found = checked(path)
    assert [one["id"] for one in found.checks["p0"]] == ["ssh"] and found.facts == {}
    failed = found.checks["p0"][0]
    assert (failed["state"], failed["required"]) == ("failed", True)
    expected = {
        "another host key": f"ssh-keygen -R '[{P0}]:{one_host.port}' -f {known}, then invoke",
        "no host key": "invoke setup-keys --environment three",
        "another user key": "invoke setup-keys --environment three; the user is hosts.p0.user",
    }
    assert expected[fault] in failed["todo"], failed
    assert "host p0: 0 ok, 1 failed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_host_without_an_ssh_server_and_one_without_python(
    tmp_path: Path, one_host: SshHost
) -> None:
    no_python = one_host.entry().rpartition("python: ")[0] + "python: /no/python3}"
    no_server = one_host.entry().replace(P0, D0)
    hosts = f"  p0: {no_python}\n  d0: {no_server}\n"
    topology = "{colocated: [{hosts: [p0]}, {hosts: [d0]}]}"
    with address_on_loopback(D0):
        found = checked(environment(tmp_path, one_host.known_hosts, hosts, topology))
    assert by_name(found.checks["p0"])["checks"]["state"] == "failed"
    assert "/no/python3" in by_name(found.checks["p0"])["checks"]["found"]
    assert "refuses connections" in by_name(found.checks["d0"])["ssh"]["found"]


def test_where_ansible_lost_what_ssh_said_ssh_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible tells of a broken pipe when ssh ends before it has read its input."""

    def play(playbook: str, inventory: Path, settings: Any, on_event: Any, **_: Any) -> None:
        msg = "Task failed: Data could not be sent: [Errno 32] Broken pipe"
        on_event({"event": "unreachable", "host": "p0", "task": jobs.TASK, "msg": msg})

    monkeypatch.setattr(jobs.fleet, "play", play)
    hosts = "  p0: {address: 127.0.0.1, port: 1, user: root}\n"
    path = environment(tmp_path, tmp_path / "known", hosts, "{colocated: [{hosts: [p0]}]}")
    [failed] = checked(path).checks["p0"]
    assert "port 1 refuses connections" in failed["found"]
