"""What engines compile, on three real SSH hosts: compiled once, kept, given to others, refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from ssh_fleet import STAND_INS, Fleet, ssh_fleet

from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["a", "b", "c"]
CACHES = "/data/omnikit/caches"

pytestmark = [pytest.mark.slow, pytest.mark.needs("unshare", "nsenter", "ip", "sshd", root=True)]


class Site:
    """An environment of single servers, of which each host may have one."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.fleet, self.file = fleet, folder / "caches.yaml"
        self.control = control_folder("caches")
        for name in NAMES:
            model = fleet.hosts[name].path("/data/model")
            model.mkdir(parents=True)
            (model / "config.json").write_text("{}")
        self.file.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            "runtime: process\n"
            f"{fleet.settings()}"
            "topology: {colocated: [{hosts: [a]}], prefill: [], decode: [], proxy: null}\n"
            "devices: '0'\n"
            "model: {path: /data/model, served_name: tiny, placement: false}\n"
            f"server:\n  command: [python3, {STAND_INS}/fleet_server.py, serve,"
            " '${plan.model_path}']\n"
            "  env: {STAND_IN_COMPILES: 300, HOST_IP: '${plan.host_ip}'}\n"
            "caches: {use: true, variables: [VLLM_CACHE_ROOT], kept: 0}\n"
            "restart: {policy: never}\n"
            "readiness: {poll_interval_s: 0.1, deadline_s: 60}\n"
            "stop: {grace_s: 3}\n"
            "fleet: {connect_timeout_s: 5}\n"
            "distribution: {free_mib: 1, port: 22193}\n"
        )

    def run(self, name: str, *words: str, hosts: str = "abc") -> subprocess.CompletedProcess[str]:
        """A script for the instances of these hosts."""
        wanted = ", ".join(f"{{hosts: [{host}]}}" for host in hosts)
        sets = ["--set", f"topology.colocated=[{wanted}]"]
        argv = [sys.executable, f"scripts/{name}", "-e", str(self.file), *sets, *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def deploy(self, *words: str, hosts: str = "abc") -> str:
        done = self.run("deploy.py", "--yes", *words, hosts=hosts)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def keys(self, host: str) -> list[str]:
        """The folders of a host that may be used."""
        there = self.fleet.hosts[host].path(CACHES)
        return sorted(path.parent.name for path in there.glob("*/key.json"))

    def graph(self, host: str, key: str) -> bytes:
        """What one server has compiled; no two servers make the same."""
        place = self.fleet.hosts[host].path(f"{CACHES}/{key}/VLLM_CACHE_ROOT/torch_compile_cache")
        assert (place / "graph.lock").exists() and (place / ".index").exists()
        return (place / "rank_0" / "graph.bin").read_bytes()

    def log(self, host: str) -> str:
        """The last line of what a host's server said of compiling."""
        [path] = self.fleet.hosts[host].path("/data/omnikit/logs").glob("*/server_0.log")
        found = re.findall(r"the stand-in (found|compiles)", path.read_text())
        return str(found[-1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("caches")
    with ssh_fleet(folder / "fleet", NAMES, npu=True) as fleet:
        made = Site(folder, fleet)
        try:
            yield made
        finally:
            made.run("stop.py")
            shutil.rmtree(made.control, ignore_errors=True)


def test_the_first_host_compiles_and_others_get_it_before_they_start(site: Site) -> None:
    said = site.deploy(hosts="a")
    assert re.search(r"s0 on a: cache \w{32} not there; compiled at the start", said), said
    [key] = site.keys("a")
    assert f"host a: cache {key} kept" in said and site.log("a") == "compiles"

    plan = site.run("plan.py", "--live", hosts="ab").stdout
    assert f"caches (VLLM_CACHE_ROOT) in {CACHES}/KEY, of:" in plan
    assert f"s0 on a: cache {key} there, 300.0 KiB" in plan
    assert f"s1 on b: cache {key} not there; a gives it, 300.0 KiB" in plan
    assert not site.fleet.hosts["b"].path(CACHES).exists()

    said = site.deploy(hosts="ab")
    assert f"host b: cache has {key} of a" in said, said
    assert site.keys("b") == [key] and site.log("b") == "found"
    assert site.graph("b", key) == site.graph("a", key)
    assert not site.fleet.hosts["b"].path(f"{CACHES}/incoming").exists()


def test_a_second_deploy_changes_nothing(site: Site) -> None:
    said = site.deploy(hosts="ab")
    assert "caches is ready: nothing to change" in said
    assert ": cache " not in said


def test_another_engine_on_a_host_is_another_key_and_is_not_given(site: Site) -> None:
    [key] = site.keys("a")
    program = site.fleet.hosts["c"].path(f"{STAND_INS}/fleet_server.py")
    before = program.read_text()
    program.write_text(before + "\n# another release\n")
    said = site.deploy()
    assert re.search(r"s2 on c: cache \w{32} not there; compiled at the start", said), said
    assert site.keys("c") != [key] and site.log("c") == "compiles"
    program.write_text(before)
    site.run("stop.py")
    said = site.deploy()
    assert f"host c: cache has {key} of " in said, said
    assert site.keys("c") == [key], "nothing uses the other one any more"
    assert [site.log(name) for name in NAMES] == ["found"] * 3


def test_a_changed_flag_is_another_key(site: Site) -> None:
    [key] = site.keys("a")
    changed = "{hosts: [a], server: {args: {max-model-len: 1024}}}, {hosts: [b]}, {hosts: [c]}"
    said = site.deploy("--at-once", "--set", f"topology.colocated=[{changed}]")
    [other] = site.keys("a")
    assert other != key and site.log("a") == "compiles"
    assert f"host a: cache {other} kept; {key} removed, which nothing uses" in said, said
    said = site.deploy("--at-once")
    assert f"host a: cache has {key} of b" in said and site.log("a") == "found", said
    assert site.keys("a") == site.keys("b") == [key]


def test_what_is_damaged_is_refused_and_comes_anew(site: Site) -> None:
    [key] = site.keys("b")
    record = site.fleet.hosts["b"].path(f"{CACHES}/{key}/key.json")
    told = json.loads(record.read_text())
    told["inputs"]["args"] = {"stale": True}
    record.write_text(json.dumps(told))
    site.fleet.hosts["c"].path(f"{CACHES}/{key}/key.json").write_text("{")
    site.run("stop.py")
    said = site.deploy()
    assert f"s1 on b: cache {key} not used: its key.json is of something else: args" in said, said
    assert f"s2 on c: cache {key} not used: its key.json is damaged" in said
    assert f"host b: cache has {key} of a" in said and f"host c: cache has {key} of a" in said
    assert site.graph("b", key) == site.graph("c", key) == site.graph("a", key)
    assert [site.log(name) for name in NAMES] == ["found"] * 3


def test_what_cannot_be_given_is_said_and_compiled_anew(site: Site) -> None:
    [key] = site.keys("a")
    site.run("stop.py")
    for name in NAMES[1:]:
        site.fleet.run(name, f"rm -r {CACHES}")
    graph = f"{CACHES}/{key}/VLLM_CACHE_ROOT/torch_compile_cache/rank_0/graph.bin"
    site.fleet.run("a", f"printf x | dd of={graph} conv=notrunc status=none")
    said = site.deploy()
    assert "cache not brought: " in said and "graph.bin is not what key.json says" in said, said
    assert (site.log("b"), site.log("c")) == ("compiles", "compiles")


def test_clean_up_takes_them_away(site: Site) -> None:
    assert site.run("clean_up.py", "--yes").returncode == 0
    assert not any(site.fleet.hosts[name].path(CACHES).exists() for name in NAMES)
