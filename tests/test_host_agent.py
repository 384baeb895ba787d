"""What is shipped to a host, run there as Ansible runs it, on every Python that hosts may have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from host_cases import a_host, a_node, clean, pythons

from hostkit.base import lock
from hostkit.base.health import wait_until
from hostkit.base.records import locked
from hostkit.nodes import start_stop
from omnikit.fleet import bundle

# Real processes, seconds together.
pytestmark = pytest.mark.slow


def ship(folder: Path, host: dict[str, Any]) -> Path:
    path = folder / "incoming.pyz"
    path.write_bytes(bundle.archive({"host.json": json.dumps(host)}, bundle.host_code()))
    return path


def agent(path: Path, *words: str, python: str = sys.executable) -> tuple[int, Any, str]:
    done = subprocess.run([python, str(path), *words], capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_the_whole_life_of_a_node(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""), a_node(tmp_path, "c0", "", role="proxy"))
    shutil.rmtree(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "scripts")
    path = ship(tmp_path, host)
    try:
        _, looked, _ = agent(path, "look")
        assert looked["actions"] == {"p0": "start", "c0": "start"}
        assert looked["files"] == {"bundle/host.json": "create"}
        assert not (tmp_path / "bundle").exists()  # looking changes nothing
        assert agent(path, "up", "--roles=prefill")[1] == {
            "done": {"p0": "started"},
            "changed": True,
        }
        code, waited, _ = agent(path, "wait", "--roles=prefill", "--seconds=15")
        assert code == 0 and waited["verdict"] == "ready"
        assert waited["time"] >= waited["nodes"][0]["ready_at"]  # by the same clock
        assert agent(path, "up", "--roles=proxy", "--wait")[1]["verdict"] == "ready"
        installed = tmp_path / "scripts" / "host_agent.py"
        _, seen, _ = agent(installed, "status")
        assert [node["state"] for node in seen["nodes"]] == ["ready", "ready"]
        assert agent(path, "up")[1]["changed"] is False
        assert agent(installed, "stop")[1]["done"] == {"c0": "stopped", "p0": "stopped"}
        assert agent(installed, "stop")[1] == {"done": {}, "changed": False}
    finally:
        clean(host)


def test_a_look_sees_what_is_under_way_when_it_is_done(tmp_path: Path) -> None:
    """A controller that is killed leaves its agent on the host, which goes on."""
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    path = ship(tmp_path, host)
    place = tmp_path / lock.FLOCK
    try:
        with locked(place, "what a killed command had begun"):
            look = subprocess.Popen([sys.executable, str(path), "look"], stdout=subprocess.PIPE)

            def waits() -> bool:
                files = Path(f"/proc/{look.pid}/fd")
                with suppress(OSError):
                    return any(one.readlink() == place for one in files.iterdir())
                return False

            assert wait_until(waits, 30, 0.02)
            start_stop.up(host, {"prefill"})
        said, _ = look.communicate(timeout=60)
        assert json.loads(said)["actions"] == {"p0": "unchanged"}
    finally:
        clean(host)


def test_not_yet_and_failed_have_exit_codes_of_their_own(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", "ready-after=60 exit-after=2"))
    path = ship(tmp_path, host)
    try:
        agent(path, "up")
        assert agent(path, "wait", "--seconds=0.1")[0] == 3
        code, waited, _ = agent(path, "wait", "--seconds=20")
        assert code == 1 and waited["verdict"] == "failed"
    finally:
        clean(host)


@pytest.mark.parametrize("python", pythons())
def test_every_supported_python_runs_it(tmp_path: Path, python: str) -> None:
    path = ship(tmp_path, a_host(tmp_path, a_node(tmp_path, "p0", "")))
    code, looked, said = agent(path, "look", python=python)
    assert code == 0 and looked["actions"] == {"p0": "start"}, said
