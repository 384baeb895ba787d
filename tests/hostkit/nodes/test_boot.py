"""After a reboot: which nodes are started again, and the unit that systemd does it by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_cases import a_host, a_node, clean, processes, reaches, record_of
from systemd_host import SystemdHost

from hostkit.base.health import wait_until
from hostkit.base.records import alive, write_record
from hostkit.nodes import boot, needed, start_stop

RULE = {"delay_s": 0.05, "delay_max_s": 0.1, "limit": 2, "settled_s": 600}
# A stand-in for systemctl: it links and unlinks as it does.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$1" in
  enable) ln -sf ../"$3" {folder}/units/multi-user.target.wants/"$3" ;;
  disable) rm {folder}/units/multi-user.target.wants/"$3" ;;
esac
"""


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of systemd's units, on a host that root uses and systemd runs."""
    made = tmp_path / "units"
    (made / "multi-user.target.wants").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(SYSTEMCTL.format(folder=tmp_path))
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(boot, "UNITS", made)
    monkeypatch.setattr(boot, "_RUNS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def host_of(folder: Path) -> dict[str, Any]:
    made = {"work_dir": str(folder), "environment": "x", "grace_s": 30, "nodes": []}
    return {**made, "boot": "systemd"}


def test_a_unit_is_installed_once_and_taken_away_when_it_is_no_longer_wanted(
    tmp_path: Path, units: Path
) -> None:
    host = host_of(tmp_path)
    assert boot.hindrance(host) is None
    assert boot.install(host)
    calls = tmp_path / "calls"
    assert calls.read_text().splitlines() == ["daemon-reload", "enable --quiet omnikit-x.service"]
    assert not boot.install(host)
    assert (units / "omnikit-x.service").read_text() == boot.unit(host)
    assert boot.install({**host, "grace_s": 60})  # another text
    assert not boot.install({**host, "boot": "auto", "grace_s": 60})  # the same
    del host["boot"]
    assert boot.install(host)
    assert list(units.iterdir()) == [units / "multi-user.target.wants"]
    assert not list((units / "multi-user.target.wants").iterdir())
    assert not boot.install(host)


def test_a_clean_up_takes_it_away_and_leaves_one_that_is_not_ours(
    tmp_path: Path, units: Path
) -> None:
    host = a_host(tmp_path / "work", environment="x", boot="systemd", containers={})
    (tmp_path / "work" / "state").mkdir()
    other = units / "omnikit-y.service"
    other.write_text("[Unit]\n")
    assert not boot.remove({**host, "environment": "y"}) and other.exists()
    assert start_stop.up(host, {"prefill"}) == {}
    assert (units / "omnikit-x.service").exists()
    start_stop.clean({"work_dir": host["work_dir"]})
    assert [path.name for path in units.glob("*.service")] == ["omnikit-y.service"]


def test_where_it_cannot_be_a_deploy_says_so(
    tmp_path: Path, units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_of(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" in str(boot.hindrance(host)) and not boot.install(host)
    monkeypatch.setattr(boot, "_RUNS", tmp_path / "none")
    [note] = needed.notes(host, {})
    assert "systemd does not run this host" in note
    for asked in ("auto", None):
        assert needed.notes({**host, "boot": asked}, {}) == []
        assert not boot.install({**host, "boot": asked})


@pytest.mark.slow
@pytest.mark.needs("systemd-analyze")
def test_systemd_itself_reads_the_unit_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" 100% $HOME'
    (folder / "scripts").mkdir(parents=True)
    path = tmp_path / "omnikit-x.service"
    path.write_text(boot.unit(host_of(folder)))
    words = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_what_ran_is_started_and_what_was_stopped_or_failed_is_not(tmp_path: Path) -> None:
    nodes = [a_node(tmp_path, name, "") for name in ("p0", "p1", "p2")]
    host = a_host(tmp_path, *nodes)
    try:
        start_stop.up(host, {"prefill"})
        assert all(reaches(host, name, "ready") for name in ("p0", "p1", "p2"))
        start_stop.stop(host, {"p1"})
        for name, phase in (("p0", "stopped"), ("p2", "failed")):  # as a shutdown leaves them
            record = record_of(host, name)
            os.kill(record["supervisor"]["pid"], signal.SIGKILL)
            assert wait_until(lambda r=record: not alive(r["supervisor"]), 10, 0.02)
            assert wait_until(lambda r=record: not processes(r), 10, 0.02)
            for who in (record["supervisor"], *(s["process"] for s in record["servers"])):
                who["boot_id"] = "another boot"
            write_record(tmp_path / "state", {**record, "phase": phase})
        agent = [sys.executable, str(tmp_path / "scripts" / "host_agent.py"), "boot"]
        done = subprocess.run(agent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"done": {"p0": "started"}, "changed": True}
        assert reaches(host, "p0", "ready")
        again = subprocess.run(agent, capture_output=True, text=True)
        assert json.loads(again.stdout) == {"done": {}, "changed": False}
    finally:
        clean(host)


@pytest.mark.slow
@pytest.mark.needs("systemd-analyze", "unshare", "nsenter", root=True)
def test_a_real_systemd_starts_it_after_a_reboot(tmp_path: Path) -> None:
    node = {**a_node(tmp_path, "p0", "child"), "restart": {**RULE, "watchdog_s": 120}}
    host = a_host(tmp_path, node, environment="x", boot="systemd", containers={})
    machine = SystemdHost(tmp_path)
    agent = (sys.executable, str(tmp_path / "scripts" / "host_agent.py"))
    try:
        machine.boot()
        said = machine.run(*agent, "up")
        assert said[0] == 0 and "is installed" in said[1], said
        assert reaches(host, "p0", "ready")
        assert machine.run("systemctl", "is-enabled", boot.name(host)) == (0, "enabled\n")
        before = record_of(host, "p0")["supervisor"]
        machine.reboot()
        assert reaches(host, "p0", "ready", 60)
        assert record_of(host, "p0")["supervisor"]["boot_id"] != before["boot_id"]
        status = machine.run("systemctl", "status", "--no-pager", boot.name(host))[1]
        assert "launch_servers.py" in status and "active (exited)" in status
        # Of a supervisor that is killed the successor is in the unit's control group, too.
        pid = str(record_of(host, "p0")["supervisor"]["pid"])
        assert machine.run("kill", "-9", pid)[0] == 0
        assert wait_until(lambda: "restarts" in record_of(host, "p0"), 30, 0.05)
        assert reaches(host, "p0", "ready", 60)
        status = machine.run("systemctl", "status", "--no-pager", boot.name(host))[1]
        assert "--take-over" in status
        machine.run("systemctl", "stop", boot.name(host))
        assert record_of(host, "p0")["phase"] == "stopped"
        assert machine.run(*agent, "clean")[0] == 0
        assert machine.run("systemctl", "is-enabled", boot.name(host))[0] != 0
    finally:
        machine.end()
