"""2P1D of real CPU engines in real containers: the path that Ascend takes, with another engine.

The tests share one deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from base_image import cpu_engine_image
from certificates import Authority
from docker_host import DockerHost

from hostkit.base.health import request

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "tests/environments/containers.yaml"
NAMES = [f"omnikit_containers_{node}" for node in ("c0", "d0", "p0", "p1")]

pytestmark = pytest.mark.slow


class Deployment:
    """The environment's commands, against the tests' engine."""

    def __init__(self, host: DockerHost, image: str, folder: Path) -> None:
        self.host = host
        # The image is there: how it is built is tested with it (test_docker_images.py).
        given = [f"container.image={image}", "container.build=null"]
        # Closed: nobody without a key gets in, neither at the proxy nor at a server.
        for name, text in {"api_keys": f"me: {'k' * 40}\n", "internal_key": "i" * 40}.items():
            (folder / name).write_text(text)
            given.append(f"proxy.{name}={{file: {folder}/{name}}}")
        given += [f"proxy.tls.{k}={v}" for k, v in Authority(folder).make().items()]
        self.settings = [word for one in given for word in ("--set", one)]

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, f"scripts/{name}", "-e", ENVIRONMENT, *self.settings, *words],
            cwd=ROOT,
            env={**os.environ, **self.host.env},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def containers(self) -> dict[str, Any]:
        """What the engine knows of every container, by name."""
        names = self.host.docker("ps", "-aq").stdout.split()
        if not names:
            return {}
        found = json.loads(self.host.docker("inspect", *names).stdout)
        return {entry["Name"].lstrip("/"): entry for entry in found}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status.py", "--json").stdout)
        return found

    def pids(self) -> dict[str, int]:
        nodes = self.status()["nodes"]
        return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


@pytest.fixture(scope="module")
def deployed(
    docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("keys")
    deployment = Deployment(docker_host, cpu_engine_image(docker_host), folder)
    try:
        yield deployment
    finally:
        deployment.run("stop.py")
        deployment.run("remove_container.py")


def test_a_deploy_ends_with_a_kv_hand_over_between_containers(deployed: Deployment) -> None:
    done = deployed.run("deploy.py")
    assert done.returncode == 0, done.stderr
    assert "0 recomputed" in done.stderr and "FAILED" not in done.stderr
    there = deployed.containers()
    assert sorted(there) == NAMES
    for container in there.values():
        assert container["State"]["Running"]
        assert container["HostConfig"]["NetworkMode"] == "host"
        assert container["HostConfig"]["Privileged"] is False
        assert container["HostConfig"]["ShmSize"] == 1 << 30
        assert container["Config"]["Labels"]["omnikit.owner"] == "containers"


def test_the_servers_run_inside_and_status_names_their_pids_here(deployed: Deployment) -> None:
    inits = {c["State"]["Pid"]: name for name, c in deployed.containers().items()}
    places = {Path(f"/proc/{pid}/ns/pid").readlink(): name for pid, name in inits.items()}
    for name, pid in deployed.pids().items():
        assert places[Path(f"/proc/{pid}/ns/pid").readlink()] == f"omnikit_containers_{name}"


def test_a_second_deploy_changes_nothing(deployed: Deployment) -> None:
    before = {name: c["Id"] for name, c in deployed.containers().items()}, deployed.pids()
    done = deployed.run("deploy.py")
    assert done.returncode == 0 and "nothing to change" in done.stderr
    assert before == ({n: c["Id"] for n, c in deployed.containers().items()}, deployed.pids())


def test_a_killed_server_is_seen_and_mended_alone(deployed: Deployment) -> None:
    before = deployed.pids()
    os.kill(before["p1"], signal.SIGKILL)
    status = deployed.run("status.py")
    assert status.returncode == 1 and "p1 failed" in status.stdout
    done = deployed.run("deploy.py")
    assert done.returncode == 0, done.stderr
    assert "to do: start p1\n" in done.stderr
    after = deployed.pids()
    assert after["p1"] != before["p1"]
    assert {n: p for n, p in after.items() if n != "p1"} == {
        n: p for n, p in before.items() if n != "p1"
    }


def test_a_changed_container_setting_is_named_before_anything_happens(
    deployed: Deployment,
) -> None:
    before = deployed.pids()
    done = deployed.run("plan.py", "--set", "container.shm_size=2g")
    assert done.returncode == 0
    rows = [line for line in done.stdout.splitlines() if line.startswith(("p0 ", "d0 "))]
    assert [row.split()[-1] for row in rows] == ["restart", "restart"]
    assert deployed.pids() == before


def test_stop_leaves_no_process_and_keeps_the_containers(deployed: Deployment) -> None:
    done = deployed.run("stop.py")
    assert done.returncode == 0, done.stderr
    there = deployed.containers()
    assert sorted(there) == NAMES
    assert not any(container["State"]["Running"] for container in there.values())
    assert request("http://127.0.0.1:29600/health", timeout_s=2).status == 0
    assert deployed.run("remove_container.py").returncode == 0
    assert deployed.containers() == {}


def test_a_deploy_without_the_daemon_says_how_to_start_it(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = DockerHost(Path("/no/such/folder"))
    done = Deployment(absent, "some/image:1", tmp_path).run("deploy.py")
    assert done.returncode == 2
    assert "the Docker daemon is not running" in done.stderr
    assert "systemctl start docker" in done.stderr
    assert "Traceback" not in done.stderr
