"""A Ray cluster that is complete, and one that is not; and what a plan over two hosts renders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
import wait_for_ray
from port_rooms import free_port

from hostkit.base.health import wait_until
from omnikit.config import config
from omnikit.fleet import render
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "wait_for_ray.py"
RAY_ENVIRONMENT = ROOT / "build" / "ray-2.49.2"


def wanted(*words: str):
    from argparse import Namespace

    return Namespace(nodes=2, resource="NPU", amount=32)


def node(address: str, npus: int, alive: bool = True) -> dict:
    resources = {"NPU": float(npus)} if npus else {}
    return {"Alive": alive, "NodeManagerAddress": address, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "amount", "said"),
    [
        ([node("a", 16)], 16, "1 of 2 hosts have joined"),
        ([node("a", 16), node("b", 16, alive=False)], 16, "1 of 2 hosts have joined"),
        ([node("a", 16), node("b", 0)], 16, "16 of 32 NPU are there; none on b"),
        ([node("a", 16), node("b", 15)], 31, "31 of 32 NPU are there"),
    ],
)
def test_what_is_lacking_is_said(nodes, amount, said) -> None:
    assert wait_for_ray.shortage(nodes, {"NPU": float(amount)}, wanted()) == said


def test_a_complete_cluster_lacks_nothing() -> None:
    nodes = [node("a", 16), node("b", 16)]
    assert wait_for_ray.shortage(nodes, {"NPU": 32.0}, wanted()) is None


def test_an_instance_over_two_hosts_is_a_head_a_worker_and_one_server() -> None:
    loaded = config.load("tests/environments/ray.yaml", environ={})
    plan = make_plan(loaded)
    head, worker = (n for n in plan.nodes if n.role == "prefill")
    assert head.kv_rank == worker.kv_rank == 0
    assert head.tensor_parallel == 32
    assert len(head.servers) == 1 and worker.servers == ()
    assert "--head" in head.ray and "--port=6379" in head.ray
    assert "--address=192.0.2.11:6379" in worker.ray
    assert head.env["RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"] == "1"
    assert head.command[head.command.index("--distributed-executor-backend") + 1] == "ray"
    assert head.ray_wait[-8:] == (
        *("--nodes", "2", "--resource", "NPU"),
        *("--amount", "32", "--deadline", "600"),
    )
    alone = next(n for n in make_plan(config.load("2p1d", environ={})).nodes if n.name == "p0")
    assert alone.ray == () and "RAY_CGRAPH_get_timeout" not in alone.env


def test_the_start_scripts_of_both_are_clean_shell(tmp_path: Path) -> None:
    for part in make_plan(config.load("tests/environments/ray.yaml", environ={})).nodes:
        path = tmp_path / f"{part.name}.sh"
        path.write_text(render.start_script("ray", part), encoding="utf-8")
        shellcheck = Path(sys.executable).with_name("shellcheck")
        subprocess.run([str(shellcheck), str(path)], check=True)


@pytest.fixture(scope="module")
def ray_python() -> Path:
    """The real Ray, in an environment of its own."""
    python = RAY_ENVIRONMENT / "bin" / "python"
    stamp = RAY_ENVIRONMENT / "installed"
    if not stamp.exists():
        shutil.rmtree(RAY_ENVIRONMENT, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(RAY_ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--require-hashes", "--only-binary=:all:"]
        subprocess.run(
            [*pip, "-r", str(Path(__file__).with_name("ray-requirements.txt"))], check=True
        )
        stamp.touch()
    return python


@pytest.fixture
def ray_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(ray_python: Path, ray_folder: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of a cluster; ended with their groups, whatever happens."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.terminate()
    for process in started:
        process.wait(60)


@pytest.mark.slow
def test_the_wait_ends_when_the_real_second_host_has_joined(
    ray_python: Path, cluster: list[subprocess.Popen[bytes]], ray_folder: str
) -> None:
    port = free_port()
    ray = [str(ray_python.with_name("ray")), "start", "--block", "--disable-usage-stats"]
    devices = ["--num-cpus=1", f"--resources={json.dumps({'NPU': 2})}"]
    # Ray's sockets lie below: their paths are limited to 107 bytes.
    environment = {**os.environ, "RAY_TMPDIR": ray_folder}
    words = [str(ray_python), str(SCRIPT), "--address", f"127.0.0.1:{port}", "--nodes", "2"]
    words += ["--amount", "4"]

    def join(*more: str) -> None:
        cluster.append(
            subprocess.Popen(
                [*ray, *devices, "--node-ip-address=127.0.0.1", *more], env=environment
            )
        )

    join("--head", f"--port={port}", "--include-dashboard=false")
    early = subprocess.run(
        [*words, "--deadline", "25", "--interval", "0.2"], capture_output=True, text=True
    )
    assert early.returncode == 1
    assert "1 of 2 hosts have joined" in early.stderr
    with subprocess.Popen([*words, "--deadline", "90"], stderr=subprocess.PIPE, text=True) as wait:
        join(f"--address=127.0.0.1:{port}")
        assert wait_until(lambda: wait.poll() is not None, 90, 0.1)
        assert wait.returncode == 0
