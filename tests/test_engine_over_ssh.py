"""A real CPU vLLM 2P1D on three real SSH hosts: KV goes from host to host, over their network.

The hosts see this machine's engine by a bind mount: it is large. The tests share one deployment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from ssh_fleet import Fleet, FleetHost, ssh_fleet

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["p0", "p1", "d0"]
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def bind(host: FleetHost, folder: Path) -> None:
    """A folder of this machine in the same place on a host, also where it hides that part."""
    inside = host.folder / "root" / str(folder).lstrip("/")
    words = ["nsenter", "--target", str(host.pid), "--mount"]
    subprocess.run([*words, "mkdir", "-p", str(inside)], check=True)
    subprocess.run([*words, "mount", "--bind", str(folder), str(inside)], check=True)


class Site:
    """The environment on a fleet."""

    def __init__(self, folder: Path, fleet: Fleet, engine: Path, model: Path) -> None:
        self.fleet = fleet
        self.file = folder / "engines.yaml"
        self.file.write_text(
            "profile: {engine: cpu, model: tiny-qwen2}\n"
            f"{fleet.settings()}"
            "topology: {prefill: [{hosts: [p0]}, {hosts: [p1]}], decode: [{hosts: [d0]}],"
            " proxy: d0}\n"
            f"engine: {{venv: {engine}, requirements: null}}\n"
            "model: {path: /data/model}\n"
            "paths: {work_dir: /data/omnikit}\n"
            "proxy: {kind: nginx-lua, probe_timeout: 10s}\n"
            "restart: {policy: never}\n"
        )
        for host in fleet.hosts.values():
            bind(host, engine)
            bind(host, (engine / "bin" / "python").resolve().parents[1])  # its standard library
            shutil.copytree(model, host.path("/data/model"))

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, f"scripts/{script}", "-e", str(self.file), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, engine_python: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("engines")
    model = folder / "model"
    made = [sys.executable, "scripts/make_tiny_model.py", "--out", str(model)]
    subprocess.run(made, cwd=ROOT, check=True, capture_output=True)
    with ssh_fleet(folder / "fleet", NAMES) as fleet:
        site = Site(folder, fleet, engine_python.parents[1], model)
        try:
            yield site
        finally:
            site.run("stop.py")


def test_a_host_without_the_engine_is_named_with_what_installs_it(site: Site) -> None:
    done = site.run("deploy.py", "--set", "engine.venv=/no/such/engine")
    assert done.returncode == 2 and "nothing was changed" in done.stderr
    said = "the engine is missing: there is no /no/such/engine/bin/python."
    for name in NAMES:
        assert f"{name}: {said}" in done.stderr
    assert "scripts/install_engine.py --venv /no/such/engine;" in done.stderr
    assert "Traceback" not in done.stderr


def test_kv_is_handed_over_from_host_to_host(site: Site) -> None:
    done = site.run("deploy.py", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ready"] and set(result["changed"]) == {"p0", "p1", "d0", "c0"}
    checks = {check["name"]: check for check in result["checks"]}
    assert checks["KV hand-over"]["found"] == "44 of 44 prompt tokens transferred, 0 recomputed"
    assert checks["completion"]["passed"]
    assert result["url"] == f"http://{site.fleet.hosts['d0'].address}:7000"


def test_a_second_deployment_changes_nothing_and_status_says_so(site: Site) -> None:
    done = site.run("deploy.py")
    assert done.returncode == 0 and "engines is ready: nothing to change" in done.stderr
    shown = json.loads(site.run("status.py", "--json").stdout)
    assert shown["ok"] and {node["host"] for node in shown["nodes"]} == set(NAMES)
    for name in NAMES:
        left = site.fleet.run(name, "pgrep -fc vllm.entrypoints", check=False).stdout
        assert left.strip() != "0", name


def test_stop_leaves_no_engine_on_any_host(site: Site) -> None:
    done = site.run("stop.py", "--json")
    assert json.loads(done.stdout) == dict.fromkeys(("c0", "d0", "p0", "p1"), "stopped")
    for name in NAMES:
        left = site.fleet.run(name, "pgrep -fc 'vllm|VLLM|nginx'", check=False).stdout
        assert left.strip() == "0", name
    assert "nothing to stop" in site.run("stop.py").stdout
