"""What the installation of system packages leaves alone. The installation itself runs in CI."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from omnikit import packages, run


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "sbin").mkdir()
    return tmp_path / "sbin/policy-rc.d"


def asked(policy: Path) -> int:
    return run.run([policy, "nginx", "start"], check=False).code


def test_services_are_held_only_meanwhile(policy):
    with packages.services_held(policy):
        assert asked(policy) == 101
    assert list(policy.parent.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_no_policy_behind(policy, error):
    with pytest.raises(error), packages.services_held(policy):
        raise error
    assert list(policy.parent.iterdir()) == []


def test_an_end_from_outside_leaves_no_policy_behind(policy):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, packages.services_held(policy):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert list(policy.parent.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_policy_of_somebody_else_stays_as_it_is(policy):
    program(policy.parent, policy.name, "exit 101 # theirs")
    with packages.services_held(policy):
        assert "theirs" in policy.read_text(encoding="utf-8")
    assert "theirs" in policy.read_text(encoding="utf-8")


def test_what_a_killed_run_left_is_cleared_by_the_next(policy):
    program(policy.parent, policy.name, f"{packages.MARK}\nexit 101")
    with packages.services_held(policy):
        assert asked(policy) == 101
    assert not policy.exists()


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A PATH with nothing on it but what the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def obstacle(policy, **given):
    said: list[str] = []
    found = packages.obstacle(dry_run=False, report=said.append, policy=policy, **given)
    return found, said


def test_without_apt_get_nothing_is_tried(closed, policy):
    assert obstacle(policy) == ("this system has no apt-get", [])


def test_without_root_nothing_is_tried(closed, policy, monkeypatch):
    program(closed, "apt-get", "exit 0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert obstacle(policy) == ("installing packages needs root", [])


def test_a_policy_that_would_start_nginx_is_an_obstacle(closed, policy):
    program(closed, "apt-get", "exit 0")
    program(policy.parent, policy.name, "exit 0")
    assert "port 80" in (obstacle(policy)[0] or "")
    program(policy.parent, policy.name, "exit 101")
    assert obstacle(policy) == (None, [])


def test_a_system_without_the_packages_is_looked_at_again_after_an_update(closed, policy, tmp_path):
    log = tmp_path / "calls"
    program(closed, "apt-get", f'echo "$*" >> {log}\ncase "$1" in update) exit 0;; esac; exit 100')
    found, said = obstacle(policy)
    assert found == "apt-get finds no nginx and libnginx-mod-http-js here"
    assert "apt-get update" in said[0]
    calls = log.read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["install", "update", "install"]
    assert all("--simulate" in call for call in calls if call.startswith("install"))


@pytest.mark.parametrize(("state", "disabled"), [("not-installed", True), ("installed", False)])
def test_only_an_nginx_that_it_brought_is_disabled(closed, policy, tmp_path, state, disabled):
    log = tmp_path / "calls"
    program(closed, "dpkg-query", f"printf {state}")
    keep = f'echo "$0 $*" | /usr/bin/tee -a {log} > /dev/null'
    program(closed, "apt-get", f"{keep}; {policy}; echo $? >> {log}")
    program(closed, "systemctl", keep)
    packages.install(lock_timeout_s=5, report=lambda text: None, policy=policy)
    calls = log.read_text(encoding="utf-8")
    assert "--no-install-recommends --no-remove --no-upgrade" in calls
    assert "DPkg::Lock::Timeout=5 nginx libnginx-mod-http-js\n101\n" in calls
    assert ("systemctl disable nginx.service" in calls) is disabled
    assert not policy.exists()
