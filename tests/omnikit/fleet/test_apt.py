"""What the installation of system packages leaves alone. The installation itself runs in CI."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hostkit.base import run
from omnikit.fleet import apt


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
    with apt.services_held(policy):
        assert asked(policy) == 101
    assert list(policy.parent.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_no_policy_behind(policy, error):
    with pytest.raises(error), apt.services_held(policy):
        raise error
    assert list(policy.parent.iterdir()) == []


def test_an_end_from_outside_leaves_no_policy_behind(policy):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, apt.services_held(policy):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert list(policy.parent.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_policy_of_somebody_else_stays_as_it_is(policy):
    program(policy.parent, policy.name, "exit 101 # theirs")
    with apt.services_held(policy):
        assert "theirs" in policy.read_text(encoding="utf-8")
    assert "theirs" in policy.read_text(encoding="utf-8")


def test_what_a_killed_run_left_is_cleared_by_the_next(policy):
    program(policy.parent, policy.name, f"{apt.MARK}\nexit 101")
    with apt.services_held(policy):
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
    found = apt.obstacle(dry_run=False, report=said.append, policy=policy, **given)
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
    assert found == "apt-get finds no nginx and libnginx-mod-http-lua here"
    assert "apt-get update" in said[0]
    calls = log.read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls[:3]] == ["install", "update", "install"]
    assert all("--simulate" in call for call in calls if call.startswith("install"))


# What Debian's dpkg-query says of the packages of nginx, and of what else came with them.
QUERY = """
case "$1 $2 $3" in
"-W -f "*) [ ! -e {done} ] || echo "installed nginx-common nginx
installed nginx nginx
installed libnginx-mod-http-lua libnginx-mod-http-lua
installed cron cron
config-files old old"
  echo "installed libc6 glibc";;
-L*) echo "/usr/sbin/nginx"
  case "$*" in *nginx-common*) echo "/lib/systemd/system/nginx.service
/etc/init.d/nginx";; esac
  case "$*" in *cron*) echo "/lib/systemd/system/cron.service";; esac;;
esac
"""


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("systemd", [True, False])
def test_only_services_that_it_brought_are_disabled(
    closed, policy, tmp_path, monkeypatch, there, systemd
):
    log, done = tmp_path / "calls", tmp_path / "done"
    monkeypatch.setattr(apt, "WANTED", tmp_path / "system")
    wanted = tmp_path / "system" / "multi-user.target.wants"
    wanted.mkdir(parents=True)
    for name in ("nginx.service", "cron.service"):
        (wanted / name).symlink_to(f"/lib/systemd/system/{name}")
    if there:
        done.touch()
    program(closed, "dpkg-query", QUERY.replace("{done}", str(done)))
    keep = f'echo "${{0##*/}} $*" >> {log}'
    program(closed, "apt-get", f"{keep}; {policy}; echo $? >> {log}; : > {done}")
    if systemd:
        program(closed, "systemctl", keep)
    program(closed, "update-rc.d", keep)
    said: list[str] = []
    apt.install(apt.NAMES, lock_timeout_s=5, report=said.append, policy=policy)
    calls = log.read_text(encoding="utf-8").splitlines()
    command = (
        "apt-get install -y --no-install-recommends --no-remove --no-upgrade"
        " -o DPkg::Lock::Timeout=5 nginx libnginx-mod-http-lua"
    )
    assert calls[:2] == [command, "101"]
    assert said == [f"installing system packages (no service is started): {command}"]
    disabled = ["update-rc.d nginx disable", "systemctl disable nginx.service"]
    assert calls[2:] == ([] if there else disabled[: 1 + systemd])
    left = {path.name for path in wanted.iterdir()}
    assert left == {"cron.service", *(["nginx.service"] if there or systemd else [])}
    assert not policy.exists()


def test_packages_that_the_system_has_not_are_left_out(closed):
    refuse = 'case "$*" in *chromium*) exit 100;; esac'
    program(closed, "apt-get", refuse)
    said: list[str] = []
    asked = ("chromium", "rsync", "git")
    assert apt.available(asked, report=said.append) == ("rsync", "git")
    assert said == ["fetching the lists of packages (apt-get update)"]
    assert apt.available(asked, report=None) == ("rsync", "git") and len(said) == 1
