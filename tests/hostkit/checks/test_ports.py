"""Planned ports, with real sockets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from check_cases import ids, listener, look, one, parameters, put, recorded
from docker_host import wait_for
from port_rooms import free_port

from hostkit.checks import ports as checks_ports
from hostkit.checks.ports import held_by, reserved
from hostkit.nodes import taken_ports


def ports(folder, planned, **more):
    return look(checks_ports.look, parameters(folder, ports=planned, **more))


def test_free_ports(tmp_path):
    planned = [["127.0.0.1", free_port(), "the API of p0.0"], ["0.0.0.0", free_port(), "the proxy"]]
    entry = one(ports(tmp_path, planned), "ports.free")
    assert (entry["state"], entry["found"]) == ("ok", "2 free")


def test_nothing_planned_nothing_said(tmp_path):
    assert ids(ports(tmp_path, [])) == []


def test_a_taken_port_names_its_purpose_and_its_owner(tmp_path):
    with listener() as taken:
        port = taken.getsockname()[1]
        planned = [["127.0.0.1", port, "the API of p0.0"], ["127.0.0.1", free_port(), "x"]]
        entry = one(ports(tmp_path, planned), "ports.free")
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"].startswith(f"{port} (the API of p0.0) is taken by pid {os.getpid()} (")
    assert entry["todo"].startswith(f"fuser -v {port}/tcp;")


def test_many_taken_ports_are_shortened(tmp_path):
    sockets = [listener() for _ in range(9)]
    try:
        planned = [["127.0.0.1", s.getsockname()[1], "HCCL of p0"] for s in sockets]
        entry = one(ports(tmp_path, planned), "ports.free")
        assert entry["found"].count("is taken by") == 6
        assert entry["found"].endswith("and 3 more")
    finally:
        for one_socket in sockets:
            one_socket.close()


SERVER = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {})); s.listen();"


def test_a_port_of_our_own_recorded_server_is_fine(tmp_path):
    port = free_port()
    argv = [sys.executable, "-c", f"{SERVER.format(port)} time.sleep(600)"]
    server = subprocess.Popen(argv, start_new_session=True)
    try:
        wait_for(lambda: taken_ports.is_taken("127.0.0.1", port), "the port is taken")
        planned = [["127.0.0.1", port, "the API of p0.0"]]
        assert one(ports(tmp_path, planned), "ports.free")["state"] == "failed"
        assert held_by([server.pid]) == {port}
        recorded(tmp_path, server.pid)
        entry = one(ports(tmp_path, planned), "ports.free")
        assert (entry["state"], entry["found"]) == (
            "ok",
            "0 free, 1 held by the toolkit's own servers",
        )
    finally:
        server.kill()
        server.wait()


def test_processes_that_are_gone_hold_nothing():
    assert held_by([2**22 + 1]) == set()


@pytest.mark.parametrize(
    ("kept", "state", "found"),
    [
        ("", "warning", "the kernel may hand out 9000, 9001 (it uses 9000 to 60999)"),
        ("9000", "warning", "the kernel may hand out 9001 (it uses 9000 to 60999)"),
        ("8000-8001,9000-9010", "ok", "none between 9000 and 60999"),
    ],
)
def test_ports_in_the_kernels_own_range(tmp_path, kept, state, found):
    root = tmp_path / "r"
    put(root, "/proc/sys/net/ipv4/ip_local_port_range", "9000\t60999\n")
    put(root, "/proc/sys/net/ipv4/ip_local_reserved_ports", f"{kept}\n")
    planned = [["127.0.0.1", port, "x"] for port in (8999, 9000, 9001)]
    entry = one(ports(tmp_path, planned, root=str(root)), "ports.range")
    assert (entry["state"], entry["required"], entry["found"]) == (state, False, found)
    if state != "ok":
        assert "ip_local_reserved_ports=9000,9001;" in entry["todo"]


def test_a_kernel_that_does_not_say_its_range(tmp_path):
    entry = one(ports(tmp_path, [["127.0.0.1", 1, "x"]], root=str(tmp_path)), "ports.range")
    assert entry["state"] == "unknown"


def test_reserved_ports():
    assert reserved("1,3-5\n") == {1, 3, 4, 5}
    assert reserved("\n") == set()
