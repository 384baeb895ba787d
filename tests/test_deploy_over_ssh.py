"""2P1D on four real SSH hosts, with stand-ins for NPU tools and servers: the path of a real fleet.

The tests share one fleet and build on each other, in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ssh_fleet import STAND_INS, Fleet, ssh_fleet

from hostkit.base.health import wait_until
from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["p0", "p1", "d0", "d1"]
WEIGHTS = hashlib.shake_128(b"weights").digest(4 << 20)

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


class Site:
    """The environment "overssh" on a fleet."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.fleet = fleet
        self.file = folder / "overssh.yaml"
        self.file.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            "runtime: process\n"
            f"{fleet.settings()}"
            "topology:\n  prefill: [{hosts: [p0]}, {hosts: [p1]}]\n"
            "  decode: [{hosts: [d0, d1]}]\n  proxy: p0\n"
            "devices: '0-3'\n"
            "model: {path: /data/model, served_name: tiny, placement: false}\n"
            "roles: {disaggregated: {server: {workdir: null}}}\n"  # no source on these hosts
            f"server: {{command: [python3, {STAND_INS}/fleet_server.py, serve,"
            " '${plan.model_path}']}\n"
            "proxy: {kind: nginx-lua, prefill_balance: least_conn, decode_balance: least_conn,"
            " worker_processes: 1, worker_connections: 1024, probe_timeout: 10s}\n"
            "restart: {policy: never}\n"
            "readiness: {poll_interval_s: 0.1, deadline_s: 60}\n"
            "stop: {grace_s: 3}\n"
            "fleet: {connect_timeout_s: 5}\n"
            "distribution: {rate: 512k, free_mib: 1}\n"  # so that there is something to see
        )
        # p0 alone has the model; an older version of it lies on d1.
        model = fleet.hosts["p0"].path("/data/model")
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(WEIGHTS)
        older = fleet.hosts["d1"].path("/data/model-older")
        older.mkdir(parents=True)
        (older / "model.safetensors").write_bytes(bytes(100) + WEIGHTS[100:])
        self.control = control_folder("overssh")

    def argv(self, name: str, *words: str) -> list[str]:
        runner = ["bash"] if name.endswith(".sh") else [sys.executable]
        return [*runner, f"scripts/{name}", "-e", str(self.file), *words]

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(name, *words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            start_new_session=True,
        )

    def deploy(self, *words: str, code: int = 0) -> str:
        done = self.run("deploy.py", *words)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def pids(self) -> dict[str, Any]:
        nodes = json.loads(self.run("status.py", "--json").stdout)["nodes"]
        return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("overssh")
    variables = {name: {"FAKE_HCCN_HOST": str(i)} for i, name in enumerate(NAMES)}
    with ssh_fleet(folder / "fleet", NAMES, npu=True, variables=variables) as fleet:
        made = Site(folder, fleet)
        try:
            yield made
        finally:
            made.run("stop.py")
            shutil.rmtree(made.control, ignore_errors=True)


def test_a_first_deployment_brings_the_weights_and_serves_through_the_proxy_host(
    site: Site,
) -> None:
    without = site.deploy("--set", "distribution.on_deploy=false", code=2)
    assert "nothing was changed, because:" in without and "/data/model" in without
    said = site.deploy()
    assert "the weights are missing on p1, d0, d1" in said
    assert "good pieces of 1 older files are used" in said
    assert re.search(r" % of .*/s in all.*; slowest \w+ .*/s", said), said
    for name in NAMES:
        there = site.fleet.hosts[name].path("/data/model")
        assert (there / "model.safetensors").read_bytes() == WEIGHTS
        assert sorted(one.name for one in there.iterdir()) == ["config.json", "model.safetensors"]
    older = site.fleet.hosts["d1"].path("/data/model-older/model.safetensors")
    assert older.read_bytes()[:100] == bytes(100)
    got = re.search(r"host d1: has it, verified \(([\d.]+) KiB in", said)
    assert got and float(got[1]) < 300, said
    assert "rank tables: " in said and "overssh is ready" in said
    for step in ("Start the servers", "Wait for the servers"):
        assert step in said  # the table of durations, a column for each host
    table = json.loads(
        site.fleet.hosts["d1"]
        .path("/data/omnikit/bundle/ranktable")
        .joinpath("global/global_ranktable_merge.json")
        .read_text()
    )
    servers = [server for group in table["server_group_list"] for server in group["server_list"]]
    addresses = [device["device_ip"] for server in servers for device in server["device"]]
    assert addresses[:4] == ["10.1.0.100", "10.1.0.101", "10.1.0.102", "10.1.0.103"]
    assert addresses[-1] == "10.1.3.103"


def test_a_second_deployment_changes_nothing(site: Site) -> None:
    before = site.pids()
    assert "overssh is ready: nothing to change" in site.deploy()
    assert site.pids() == before


def test_a_changed_setting_restarts_only_the_instance_it_concerns(site: Site) -> None:
    before = site.pids()
    changed = "topology.prefill=[{hosts: [p0]}, {hosts: [p1], server: {env: {A: 1}}}]"
    asked = site.run("plan.py", "--live", "--set", changed)
    assert asked.returncode == 0, asked.stderr
    rows = {line.split()[0]: line.split()[-1] for line in asked.stdout.splitlines() if line}
    assert (rows["p0"], rows["p1"], rows["d0"], rows["d1"]) == (
        *("unchanged", "restart", "unchanged", "unchanged"),
    )
    assert "to do: restart p1\n" in site.deploy("--yes", "--set", changed)
    after = site.pids()
    assert {name for name in before if before[name] != after[name]} == {"p1"}
    assert "to do: restart p1\n" in site.deploy("--yes")


def test_an_instance_over_two_hosts_comes_back_by_itself(site: Site) -> None:
    again = ["--set", "restart.policy=on-failure", "--set", "roles.decode.server.env.A=1"]
    assert "overssh is ready" in site.deploy("--yes", *again)
    before = site.pids()
    assert not wait_until(lambda: site.pids() != before, 4, 1)  # they see each other meanwhile
    site.fleet.run("d1", f"kill -9 {before['d1.2']}")

    def back() -> bool:
        now = site.pids()
        return all(now[name] not in (None, before[name]) for name in before if name[0] == "d")

    assert wait_until(back, 120, 1), site.run("status.py").stdout
    assert {name: pid for name, pid in site.pids().items() if name[0] != "d"} == {
        name: pid for name, pid in before.items() if name[0] != "d"
    }
    assert "nothing to change" in site.deploy(*again)
    told = site.run("history.py").stdout
    assert "d1.2 ended with exit status -9" in told and "its part d1 (" in told
    site.deploy("--yes")


def test_a_control_host_that_is_killed_goes_on_where_it_was(site: Site) -> None:
    site.run("stop.py")
    slow = ["--set", "server.env.STAND_IN_DELAY_S=4"]
    argv = site.argv("deploy.py", *slow)
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if "started on" in line:
                break
        os.kill(killed.pid, signal.SIGKILL)
    lock = site.fleet.hosts["p0"].path("/data/omnikit/deploy.lock")
    assert "overssh" in lock.read_text()  # it was killed while it held the hosts
    said = site.deploy(*slow)
    assert "overssh is ready" in said
    assert not lock.exists()


def test_a_host_that_reboots_in_mid_deploy_is_named_and_the_next_run_goes_on(site: Site) -> None:
    site.run("stop.py")
    slow = ["--set", "server.env.STAND_IN_DELAY_S=4"]
    with subprocess.Popen(
        site.argv("deploy.py", *slow), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        said = ""
        for line in running.stderr:
            said += line
            if "p1: started on p1" in line:
                site.fleet.stop("p1")
                site.fleet.start("p1")
    assert running.returncode == 1 and "Traceback" not in said, said
    assert "p1" in said.split("error: ", 1)[1].splitlines()[0]
    said = site.deploy(*slow)
    assert "overssh is ready" in said
    assert not site.fleet.hosts["p1"].path("/data/omnikit/deploy.lock").exists()


def test_somebody_elses_deployment_is_named(site: Site) -> None:
    before = site.pids()
    lock = site.fleet.hosts["d1"].path("/data/omnikit/deploy.lock")
    held = {"owner": "ann@other:/opt", "what": "deploy of overssh", "since": time.time()}
    lock.write_text(json.dumps(held))
    said = site.deploy("--yes", "--set", "server.env.STAND_IN_DELAY_S=0", code=2)
    assert (
        "host d1, step 'Take the lock'" in said and "ann@other:/opt is changing this host" in said
    )
    assert site.pids() == before
    assert not site.fleet.hosts["p0"].path("/data/omnikit/deploy.lock").exists()
    assert "d1: broken: ann@other:/opt" in site.run("unlock.py").stdout


def test_a_host_that_is_off_stops_the_verb_and_is_named(site: Site) -> None:
    site.fleet.stop("p1")
    started = time.monotonic()
    said = site.deploy(code=1)
    assert "host p1" in said and "cannot be reached" in said
    assert time.monotonic() - started < 60


def test_the_others_are_seen_while_a_host_is_off(site: Site, tmp_path: Path) -> None:
    status = site.run("status.py", "--json")
    nodes = {node["node"]: node["state"] for node in json.loads(status.stdout)["nodes"]}
    assert status.returncode == 1 and nodes["p1"] == "unreachable" and nodes["d0"] == "ready"
    fetched = site.run("fetch_logs.py", "--out", str(tmp_path), "--json")
    index = json.loads(fetched.stdout)
    assert fetched.returncode == 1 and "cannot be reached" in index["hosts"]["p1"]["error"]
    logs = list((Path(index["folder"]) / "d1").rglob("server_*.log"))
    assert logs and all("the stand-in serves tiny" in path.read_text() for path in logs)
    assert not list(site.fleet.hosts["p0"].path("/data/omnikit/jobs").glob("omnikit-logs-*"))
    found = site.run("doctor.py", "--json")
    names = {one["name"]: one["on"] for one in json.loads(found.stdout)["findings"]}
    assert found.returncode == 1 and names["host-unreachable"] == ["host p1"]


def test_a_rebooted_host_is_brought_back_alone(site: Site) -> None:
    site.fleet.start("p1")
    assert site.run("status.py").returncode == 1
    found = json.loads(site.run("doctor.py", "--json").stdout)["findings"]
    assert any("p1 on p1" in one["on"] for one in found)
    said = site.deploy("--set", "server.env.STAND_IN_DELAY_S=4")
    assert "to do: start p1\n" in said
    assert site.run("status.py").returncode == 0


def test_logs_come_from_their_hosts(site: Site) -> None:
    done = site.run("logs.py", "--lines", "200", "--instance", "d1.0", "--instance", "p0")
    assert done.returncode == 0, done.stderr
    assert "d1.0 | the stand-in serves tiny\n" in done.stdout


def test_check_env_sees_every_host(site: Site) -> None:
    done = site.run("check_env.py", "--json")
    assert "Traceback" not in done.stderr
    assert set(json.loads(done.stdout)["hosts"]) == set(NAMES)


def test_stop_ends_everything_everywhere(site: Site) -> None:
    done = site.run("stop.py", "--json")
    assert set(json.loads(done.stdout).values()) == {"stopped"}
    for name in NAMES:
        left = site.fleet.run(name, "pgrep -fc fleet_server.py", check=False).stdout
        assert left.strip() == "0"
    assert "nothing to stop" in site.run("stop.py").stdout
