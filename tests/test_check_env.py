"""scripts/check_env.py end to end: this machine, stand-ins for NPUs, and hosts behind real SSH."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Iterator

import check_env
import pytest
from ssh_hosts import SshHost, address_on_loopback, kept_connections, make_key, ssh_host

from hostkit.nodes.taken_ports import is_taken

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "check_env.py"
FAKES = ROOT / "tests" / "fake_npu"


def free_block(count: int) -> int:
    """The first of so many free ports in a row, which the kernel does not hand out meanwhile."""
    for first in range(61000 + os.getpid() % 150 * 20, 65500, count):
        if not any(is_taken("127.0.0.1", first + n) for n in range(count)):
            return first
    raise AssertionError("no free ports")


def local(folder: Path, *more: str, held: int = 0) -> list[str]:
    """Options for prefill and decode here, on free ports, in a folder of the test's."""
    path, first = folder / "here.yaml", free_block(10)
    path.write_text(
        "profile: {engine: cpu, model: tiny-qwen2}\n"
        f"paths: {{work_dir: {folder}/work}}\n"
        f"model: {{path: {folder}/model}}\n"
        "checks: {write_mib_s: 0, free_mib: {log: 1, code: 1}}\n"
        "hosts: {here: {address: 127.0.0.1, connection: local}}\n"
        "topology:\n"
        f"  prefill: [{{hosts: [here], api_port: {first}, master_port: {first + 1}}}]\n"
        f"  decode: [{{hosts: [here], api_port: {first + 2}, master_port: {first + 3}}}]\n"
        "  proxy: here\n"
        f"ports: {{proxy: {held or first + 4}, kv_side_channel: {first + 5}, zmq: {first + 7},"
        " ephemeral_low: 65536}\n"
    )
    return ["--environment", str(path), *more]


def ran(capsys: Any, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the script, in this process."""
    code = check_env.main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def entry(data: dict[str, Any], host: str, name: str) -> dict[str, Any]:
    """The one entry of a check."""
    found = [one for one in data["hosts"][host]["checks"] if one["id"] == name]
    assert len(found) == 1, [one["id"] for one in data["hosts"][host]["checks"]]
    return found[0]


def failing(data: dict[str, Any], host: str) -> list[str]:
    return [one["id"] for one in data["hosts"][host]["checks"] if one["state"] == "failed"]


def test_help_and_mistakes(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        check_env.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for word in ("--environment", "--host", "--all", "--json", "exit codes"):
        assert word in said
    assert check_env.main(["--environment", "local", "--host", "nobody"]) == 2
    assert "there is no host 'nobody', found: local" in capsys.readouterr().err
    assert check_env.main(["--environment", "nowhere"]) == 2
    with pytest.raises(SystemExit) as caught:
        check_env.main(["--no-such-option"])
    assert caught.value.code == 2


@pytest.mark.needs("ip")
def test_this_machine_is_ready(tmp_path: Path, capsys: Any) -> None:
    code, data = ran(capsys, *local(tmp_path))
    assert failing(data, "here") == [] and code == 0
    assert (data["environment"], data["passed"]) == ("here", True)
    assert entry(data, "here", "ports.free")["state"] == "ok"
    assert data["hosts"]["here"]["facts"]["python"] == sys.version.split()[0]
    # What does not apply is left out: no accelerators, no containers, no other hosts, no SSH.
    others = ("npu.", "engine.", "peers.", "ssh", "fleet.")
    assert [o["id"] for o in data["hosts"]["here"]["checks"] if o["id"].startswith(others)] == []


@pytest.mark.needs("ip")
def test_people_get_a_table_and_each_fault_with_its_remedy(tmp_path: Path, capsys: Any) -> None:
    words = local(tmp_path, "--set", "checks.open_files=1000000000")
    assert check_env.main(words) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].split() == ["check", "here"]
    assert ["limit of open files", "WARN"] in [line.rsplit(None, 1) for line in lines]
    assert "\nWARN  limit of open files\n  on: here\n  found: " in said.out
    assert "\n  needed: 1000000000 (checks.open_files)\n  what to do: " in said.out
    assert lines[-1].startswith("1 host: ") and lines[-1].endswith("; ready")
    assert said.err.startswith("checking 1 host of here\nhost here: ")
    assert check_env.main([*words, "--all"]) == 0
    assert "\nok  Linux\n  on: here\n" in capsys.readouterr().out


@pytest.mark.needs("ip")
def test_a_port_that_somebody_holds_is_named_with_the_holder(tmp_path: Path, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, data = ran(capsys, *local(tmp_path, held=port))
    assert code == 1 and failing(data, "here") == ["ports.free"]
    found = entry(data, "here", "ports.free")["found"]
    assert f"{port} (the proxy) is taken by pid {os.getpid()}" in found


@pytest.mark.needs("docker")
def test_a_docker_engine_that_does_not_run_is_named(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    words = local(tmp_path, "--set", "runtime=docker", "--set", "container.engine=docker")
    code, data = ran(capsys, *words)
    assert code == 1 and failing(data, "here") == ["engine.version"]
    one = entry(data, "here", "engine.version")
    assert "the Docker daemon is not running" in one["found"]
    assert one["todo"] == "start it: systemctl start docker"


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a host with stand-ins for the NPU's tools."""
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    words = ["--environment", str(ROOT / "tests" / "environments" / "npu.yaml")]
    return [*words, "--set", "checks.write_mib_s=0"]


def test_a_host_with_healthy_devices(npu: list[str], capsys: Any) -> None:
    _, data = ran(capsys, *npu)
    for name in ("npu.smi", "npu.devices", "npu.health", "npu.address", "fleet.device_ips"):
        assert entry(data, "a3", name)["state"] == "ok", entry(data, "a3", name)
    facts = data["hosts"]["a3"]["facts"]
    assert facts["device_ips"]["15"] == "10.1.0.115"
    assert data["passed"] is False  # this machine has no driver


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "name", "found"),
    [
        ("a3.chip-warning", "npu.health", "Warning"),
        ("a3.card-missing", "npu.devices", "not there"),
        ("dcmi-8005", "npu.smi", "-8005"),
        ("hang", "npu.smi", "no answer within"),
    ],
)
def test_a_sick_device_fails_the_host(
    npu: list[str],
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    name: str,
    found: str,
) -> None:
    monkeypatch.setenv("FAKE_NPU_SMI", state)
    code, data = ran(capsys, *npu, "--set", "checks.timeout_s=1")
    assert code == 1
    assert entry(data, "a3", name)["state"] == "failed"
    assert found in entry(data, "a3", name)["found"]


P0, D0, D1 = "198.51.100.91", "198.51.100.92", "198.51.100.93"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[SshHost]]]:
    """Prefill on one host behind SSH, decode on another and on one whose SSH server is down.

    d0 has other devices' addresses than p0 but for one, loses pings to p0's device 3,
    and has TLS on.
    """
    key = make_key(tmp_path / "key")
    path = {"PATH": f"{FAKES}:{os.environ['PATH']}"}
    own = {
        "FAKE_HCCN_HOST": "2",
        "FAKE_HCCN_CHANGED": "1=10.1.0.102",
        "FAKE_PING_LOST": "10.1.0.103",
        "FAKE_TLS": "on",
    }
    with ExitStack() as stack:
        stack.enter_context(address_on_loopback(D1))
        for name, value in stack.enter_context(kept_connections()).items():
            monkeypatch.setenv(name, value)
        hosts = [
            stack.enter_context(ssh_host(tmp_path / "p0", P0, key, path)),
            stack.enter_context(ssh_host(tmp_path / "d0", D0, key, {**path, **own})),
        ]
        file = tmp_path / "three.yaml"
        file.write_text(
            "profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}\n"
            "runtime: process\n"
            f"paths: {{work_dir: {tmp_path}/work}}\n"
            f"keys: {{known_hosts: {hosts[0].known_hosts}}}\n"
            "checks: {timeout_s: 5, write_mib_s: 0}\n"
            "hosts:\n"
            f"  p0: {hosts[0].entry()}\n"
            f"  d0: {hosts[1].entry()}\n"
            f"  d1: {hosts[0].entry().replace(P0, D1)}\n"
            "topology:\n"
            '  prefill: [{hosts: [p0], devices: "0-3"}]\n'
            '  decode: [{hosts: [d0, d1], devices: "0-3"}]\n'
            "  proxy: p0\n"
        )
        yield file, hosts


@pytest.mark.slow
def test_hosts_are_checked_side_by_side_and_against_each_other(
    fleet: tuple[Path, list[SshHost]],
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--environment", str(fleet[0]), "--json"],
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    data = json.loads(done.stdout)
    assert list(data["hosts"]) == ["p0", "d0", "d1"]
    assert [one["id"] for one in data["hosts"]["d1"]["checks"]] == ["ssh"]
    assert "refuses connections" in entry(data, "d1", "ssh")["found"]
    for host in ("p0", "d0"):
        assert entry(data, host, "ssh")["state"] == "ok"
        assert entry(data, host, "fleet.driver")["state"] == "ok"
        assert entry(data, host, "fleet.python")["state"] == "ok"
        assert entry(data, host, "fleet.clock")["state"] == "ok"
        assert entry(data, host, "fleet.names")["state"] == "warning"  # one machine, one name
        assert entry(data, host, "fleet.device_ips")["found"] == (
            "10.1.0.102 is device 2 of p0 and device 1 of d0"
        )
        reached = entry(data, host, "peers.ssh")
        assert reached["state"] == "warning"
        assert reached["found"].startswith(f"d1 ({D1}:") and "refused" in reached["found"]
    assert entry(data, "p0", "peers.devices")["found"] == "4 of 4 pings came back"
    for host, switch in (("p0", "off"), ("d0", "on")):  # four devices each: none is the odd one
        assert entry(data, host, "fleet.tls")["state"] == "failed"
        assert entry(data, host, "fleet.tls")["found"] == switch
    lost = entry(data, "d0", "peers.devices")
    assert lost["state"] == "failed"
    assert lost["found"] == "device 3 to 10.1.0.103: 0 of 3 packets came back"
    for line in (
        "host p0: ",
        "host d0: ",
        "host d1: 0 ok, 1 failed",
        "trying the way from 2 hosts",
    ):
        assert line in done.stderr


@pytest.mark.slow
def test_only_the_named_host_is_asked(fleet: tuple[Path, list[SshHost]]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--environment", str(fleet[0]), "--host", "d1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].split() == ["check", "d1"]
    assert done.stderr == "checking 1 host of three\nhost d1: 0 ok, 1 failed\n"
