"""The launcher as a program: in the foreground, with signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_cases import a_host, a_node, clean, processes, reaches, record_of

from hostkit.base.health import wait_until
from hostkit.base.records import read_record

# Real processes, seconds together.
pytestmark = pytest.mark.slow

LAUNCHER = Path(__file__).resolve().parents[1] / "scripts" / "launch_servers.py"


def words(host: dict[str, Any], name: str) -> list[str]:
    path = Path(host["work_dir"]) / "bundle" / "host.json"
    return [sys.executable, str(LAUNCHER), "--host-file", str(path), "--node", name]


def started(host: dict[str, Any], name: str) -> subprocess.Popen[str]:
    launcher = subprocess.Popen(words(host, name), stderr=subprocess.PIPE, text=True)
    state = Path(host["work_dir"]) / "state"
    assert wait_until(lambda: read_record(state, name) is not None, 15, 0.02)
    return launcher


def test_sigterm_and_ctrl_c_end_every_server_and_exit_0(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        host = a_host(tmp_path / str(number), a_node(tmp_path / str(number), "d0", "", "child"))
        with started(host, "d0") as launcher:
            try:
                assert reaches(host, "d0", "ready")
                record = record_of(host, "d0")
                launcher.send_signal(number)
                assert launcher.wait(20) == 0
                assert not processes(record)
                assert record_of(host, "d0")["phase"] == "stopped"
                assert not Path(host["nodes"][0]["temp_dir"]).exists()
            finally:
                launcher.kill()
                clean(host)


def test_a_server_that_dies_while_starting_makes_it_exit_1(tmp_path: Path) -> None:
    host = a_host(
        tmp_path, a_node(tmp_path, "d0", "ready-after=60", "exit-after=0.2 ready-after=9")
    )
    with started(host, "d0") as launcher:
        try:
            assert launcher.wait(20) == 1
            assert not processes(record_of(host, "d0"))
        finally:
            launcher.kill()
            clean(host)


def test_a_second_launcher_of_a_node_is_refused(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    with started(host, "p0") as launcher:
        try:
            done = subprocess.run(words(host, "p0"), capture_output=True, text=True)
            assert done.returncode == 2
            assert f"pid {launcher.pid}" in done.stderr
        finally:
            launcher.terminate()
            launcher.wait(20)
            clean(host)


def test_wrong_input_is_named(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    done = subprocess.run(words(host, "p7"), capture_output=True, text=True)
    assert done.returncode == 2 and "p7" in done.stderr and "p0" in done.stderr
    (tmp_path / "bundle" / "host.json").write_text("{half")
    done = subprocess.run(words(host, "p0"), capture_output=True, text=True)
    assert done.returncode == 2 and "host.json" in done.stderr


def test_dry_run_prints_the_commands_and_starts_nothing(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", "", ""))
    done = subprocess.run([*words(host, "p0"), "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2 and "stand_in_server.py" in done.stdout
    assert not (tmp_path / "state").exists()
