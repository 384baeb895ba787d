"""What make test does about programs that are not here, and what a run without them says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import install_needs
import needs
import pytest

from omnikit.fleet import apt as fleet_apt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
APT = """echo "$*" >> {folder}/calls
case "$*" in *--simulate*{unknown}*) exit 100;; *--simulate*) exit 0;; esac
case "$*" in *rsync*) : > {folder}/rsync; /bin/chmod 755 {folder}/rsync;; esac
exit {status}"""


def program(folder: Path, name: str, text: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has all but rsync, chromium and docker-registry, and no apt-get."""
    missing = {"rsync", "chromium", "docker-registry", "lua", "njs", "libnuma"}
    for name in set(needs.TOOLS) - missing:
        program(tmp_path, name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "PLACES", str(tmp_path))
    monkeypatch.setattr(needs.spec, "MODULE_PLACES", (str(tmp_path),))
    for name in needs.MODULES.values():
        (tmp_path / name).touch()
    monkeypatch.setattr(needs.install, "has_library", lambda: True)
    monkeypatch.setattr(fleet_apt, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def apt(folder: Path, unknown: str = "no-such", status: int = 0) -> None:
    text = APT.format(folder=folder, unknown=unknown, status=status)
    program(folder, "apt-get", text)
    program(folder, "dpkg-query")


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["install_needs.py", *words])
    install_needs.main()
    return capsys.readouterr().err


def test_root_gets_what_is_missing_after_it_was_said(machine, capsys, monkeypatch) -> None:
    apt(machine)
    text = said(capsys, monkeypatch, "--fast")
    assert text.splitlines() == [
        "tests need what is not here: rsync",
        "installing system packages (no service is started): apt-get install -y"
        " --no-install-recommends --no-remove --no-upgrade -o DPkg::Lock::Timeout=120 rsync",
    ]
    calls = (machine / "calls").read_text().splitlines()
    assert len(calls) == 2 and "--simulate" in calls[0] and calls[1].endswith("=120 rsync")
    assert said(capsys, monkeypatch, "--fast") == ""


def test_all_tests_need_more_and_what_the_system_has_not_is_named(
    machine, capsys, monkeypatch
) -> None:
    apt(machine, unknown="chromium")
    text = said(capsys, monkeypatch)
    assert "not here: chromium, docker-registry, rsync" in text
    assert (machine / "calls").read_text().splitlines()[-1].endswith("=120 docker-registry rsync")
    assert "need chromium, docker-registry are left out: apt-get finds no chromium here" in text


@pytest.mark.parametrize(
    ("user", "status", "why"),
    [(1000, 0, "installing packages needs root"), (0, 100, "exit status 100 from: ")],
)
def test_what_cannot_be_installed_is_left_out_with_the_reason_and_the_command(
    machine, capsys, monkeypatch, user: int, status: int, why: str
) -> None:
    apt(machine, status=status)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    text = said(capsys, monkeypatch)
    assert why in text
    assert text.splitlines()[-1].startswith("  as root: make test (it installs chromium, docker-r")
    assert (machine / "calls").exists() is bool(status)


def test_on_openeuler_it_says_what_to_install(machine, capsys, monkeypatch) -> None:
    assert said(capsys, monkeypatch).splitlines()[-3:] == [
        "  as root: dnf install rsync",
        "  by hand, no package is known here: chromium, docker-registry",
        "  then, as root: make test",
    ]


CASES = """
import needs, pytest
@pytest.mark.needs("rsync")
def test_marked(): assert False
def test_asked(): needs.needs("docker", "rsync")
def test_whole(): pass
@pytest.mark.slow
def test_slow(): needs.needs("chromium")
def test_unlisted(): needs.needs("chromium")
"""


def ran(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """pytest with the rules of this project on the cases, where no program is."""
    (folder / "test_cases.py").write_text(CASES)
    argv = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(ROOT / "pyproject.toml")]
    argv += ["-o", f"cache_dir={folder}/cache", "--rootdir", str(folder), str(folder), *words]
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "OMNIKIT_CI")}
    env = {**clean, "PATH": "/none", "PYTHONPATH": f"{ROOT}/tests:{ROOT}/scripts", **more}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)


def test_a_run_ends_with_what_it_left_out_and_the_run_before(tmp_path: Path) -> None:
    fast = ran(tmp_path, "-m", "not slow")
    assert "1 failed, 1 passed, 2 skipped, 1 deselected" in fast.stdout
    assert "a fast test needs ['chromium']: say so in TOOLS" in fast.stdout
    first = ["1 for want of docker and rsync", "1 for want of rsync", "To have them run too:"]
    after = fast.stdout.split("left out ===")[1].splitlines()
    assert after[1:4] == first and "root: dnf install docker rsync" in after[4]
    slow = ran(tmp_path, "-m", "slow", "--left-out-before")
    assert slow.returncode == 0
    after = slow.stdout.split("left out ===")[1].splitlines()
    assert after[1:5] == ["1 for want of chromium", *first]


def test_in_ci_a_test_that_is_left_out_has_failed(tmp_path: Path) -> None:
    done = ran(tmp_path, "-k", "marked or asked", CI="true")
    assert done.returncode == 1 and done.stdout.count("skipped in CI") == 2
