"""1P1D and its proxy in real containers of two real SSH hosts, each with its own Docker engine.

Servers are stand-ins (fleet_server.py); the image, which the hosts cannot pull, is shipped to
them. The tests share one deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
from docker_host import DockerHost
from fleet_docker import docker_on
from server_image import SERVER, SERVER_IMAGE, save_server_image
from ssh_fleet import Fleet, ssh_fleet

from hostkit.base.health import request
from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["a", "b"]
# The containers of each host.
PLANNED = {
    "a": ["omnikit_contained_c0", "omnikit_contained_p0"],
    "b": ["omnikit_contained_d0"],
}

pytestmark = pytest.mark.slow


class Site:
    """The environment "contained" on a fleet; engines: the hosts' Docker engines."""

    def __init__(self, folder: Path, fleet: Fleet, engines: Mapping[str, DockerHost]) -> None:
        self.fleet = fleet
        self.engines = engines
        self.file = folder / "contained.yaml"
        self.file.write_text(
            "profile: {engine: cpu, model: tiny-qwen2}\n"
            "runtime: docker\n"
            f"{fleet.settings()}"
            "topology: {prefill: [{hosts: [a]}], decode: [{hosts: [b]}], proxy: a}\n"
            "paths: {work_dir: /data/omnikit}\n"
            "model: {path: /data/model}\n"
            f"container: {{image: '{SERVER_IMAGE}', build: null, venv: null, shm_size: 64m}}\n"
            "image: {free_mib: 500, attempts: 1}\n"
            f"server: {{command: [python3, {SERVER}]}}\n"
            "engine: {memory_per_server_mib: 30}\n"
            "proxy: {kind: nginx-lua, probe_timeout: 10s}\n"
            "restart: {policy: never}\n"
            "readiness: {poll_interval_s: 0.1, deadline_s: 60}\n"
            "stop: {grace_s: 3}\n"
        )
        for host in fleet.hosts.values():
            host.path("/data/model").mkdir(parents=True)
            host.path("/data/model/config.json").write_text("{}")
        self.control = control_folder("contained")
        self.settings: list[str] = []  # what the tests have changed so far

    def run(self, name: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, f"scripts/{name}", "-e", str(self.file), *self.settings, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            start_new_session=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def containers(self, host: str) -> dict[str, Any]:
        """What a host's engine knows of its containers, by name."""
        engine = self.engines[host]
        names = engine.docker("ps", "-aq").stdout.split()
        found = json.loads(engine.docker("inspect", *names).stdout) if names else []
        return {entry["Name"].lstrip("/"): entry for entry in found}

    def ids(self) -> dict[str, str]:
        """The containers of all hosts and their identities: a container made anew has another."""
        return {name: c["Id"] for host in NAMES for name, c in self.containers(host).items()}

    def pids(self) -> dict[str, int]:
        nodes = json.loads(self.run("status.py", "--json").stdout)["nodes"]
        return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


@pytest.fixture(scope="module")
def archive(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's archive, as somebody brings it who has no registry."""
    made = save_server_image(docker_host, tmp_path_factory.mktemp("archive") / "server.tar")
    yield made
    made.unlink()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("contained")
    with ssh_fleet(folder / "fleet", NAMES) as fleet, ExitStack() as stack:
        engines = {name: stack.enter_context(docker_on(host)) for name, host in fleet.hosts.items()}
        made = Site(folder, fleet, engines)
        try:
            yield made
        finally:
            for path in sorted(made.control.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()


def test_the_image_is_shipped_to_the_hosts_and_loaded_there(site: Site, archive: Path) -> None:
    words = ["--from-archive", str(archive), "--json"]
    first = json.loads(site.run("pull_image.py", *words).stdout)["hosts"]
    assert {host: result["action"] for host, result in first.items()} == dict.fromkeys(
        NAMES, "loaded"
    )
    second = json.loads(site.run("pull_image.py", *words).stdout)["hosts"]
    assert {result["action"] for result in second.values()} == {"unchanged"}
    for host in site.fleet.hosts.values():  # the archive does not stay there
        assert not list(host.path("/data/omnikit").rglob("server.tar"))


def test_a_deployment_runs_in_containers_of_its_hosts(site: Site) -> None:
    site.engines["b"].docker("rmi", SERVER_IMAGE)
    done = site.run("deploy.py", "--json")
    assert f"b lacks {SERVER_IMAGE}, which a has" in done.stderr
    assert "host b: loaded" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ready"] and set(result["changed"]) == {"p0", "d0", "c0"}
    checks = {check["name"]: check["found"] for check in result["checks"]}
    assert "0 recomputed" in checks["KV hand-over"]
    assert result["url"] == f"http://{site.fleet.hosts['a'].address}:7000"
    for host in NAMES:
        there = site.containers(host)
        assert sorted(there) == PLANNED[host]
        for container in there.values():
            assert container["State"]["Running"]
            assert container["HostConfig"]["ShmSize"] == 64 << 20
            assert container["Config"]["Labels"]["omnikit.owner"] == "contained"


def test_the_servers_run_inside_the_containers(site: Site) -> None:
    for host, container, server in (("a", "p0", SERVER), ("b", "d0", SERVER), ("a", "c0", "nginx")):
        name = f"omnikit_contained_{container}"
        lines = site.engines[host].docker("top", name, "-eo", "pid,args").stdout.splitlines()
        inside = [line.split(None, 1)[0] for line in lines if server in line]
        assert str(site.pids()[container]) in inside, lines


def test_a_second_deployment_changes_nothing(site: Site) -> None:
    before = site.ids(), site.pids()
    assert "contained is ready: nothing to change" in site.run("deploy.py").stderr
    assert (site.ids(), site.pids()) == before


def test_a_changed_variable_restarts_one_server_in_the_container_that_is_there(site: Site) -> None:
    ids, pids = site.ids(), site.pids()
    site.settings += ["--set", "topology.prefill=[{hosts: [a], server: {env: {A: 1}}}]"]
    said = site.run("deploy.py", "--yes").stderr
    assert "to do: restart p0\n" in said
    assert site.ids() == ids
    assert {name for name, pid in site.pids().items() if pid != pids[name]} == {"p0"}


def test_a_changed_container_setting_recreates_only_the_containers_it_concerns(site: Site) -> None:
    ids, pids = site.ids(), site.pids()
    changed = "container.prefix.decode=other"
    said = site.run("deploy.py", "--yes", "--set", changed).stderr
    assert "to do: restart d0\n" in said
    after = site.ids()
    assert set(after) == {*PLANNED["a"], "other_d0"}
    assert {name: after[name] for name in PLANNED["a"]} == {n: ids[n] for n in PLANNED["a"]}
    now = json.loads(site.run("status.py", "--json", "--set", changed).stdout)["nodes"]
    moved = {s["name"] for n in now for s in n["servers"] if s["pid"] != pids[s["name"]]}
    assert moved == {"d0"}
    assert "to do: restart d0\n" in site.run("deploy.py", "--yes").stderr
    assert sorted(site.containers("b")) == PLANNED["b"]


def test_a_container_that_somebody_removed_is_brought_back_alone(site: Site) -> None:
    ids = site.ids()
    site.engines["b"].docker("rm", "--force", "omnikit_contained_d0")
    assert "d0 failed" in site.run("status.py", code=1).stdout
    assert "to do: start d0\n" in site.run("deploy.py").stderr
    after = site.ids()
    assert set(after) == set(ids)
    assert {name for name in ids if after[name] != ids[name]} == {"omnikit_contained_d0"}


def test_stop_leaves_no_process_and_clean_up_no_container(site: Site) -> None:
    done = site.run("stop.py", "--json")
    assert json.loads(done.stdout) == dict.fromkeys(("c0", "d0", "p0"), "stopped")
    for host in NAMES:
        there = site.containers(host)
        assert sorted(there) == PLANNED[host]
        assert not any(container["State"]["Running"] for container in there.values())
    address = site.fleet.hosts["a"].address
    assert request(f"http://{address}:7000/health", timeout_s=2).status == 0
    site.run("clean_up.py", "--yes")
    assert site.ids() == {}
    for host in site.fleet.hosts.values():
        left = {path.name for path in host.path("/data/omnikit").iterdir()}
        assert not left & {"bundle", "state", "incoming.pyz"}, left
