"""Reaching peers with real sockets, and devices with the stand-in for hccn_tool."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
from port_rooms import free_port

from hostkit.checks.hccn import ping_answer, ping_argv, reach, reach_port

FAKES = Path(__file__).resolve().parents[2] / "fake_npu"
FACTS = Path(__file__).resolve().parents[2] / "facts" / "npu"


@contextmanager
def greeter(*said: bytes) -> Iterator[int]:
    """A server that greets each connection with the next of these words, then waits for its end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for words in said:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(words)
                    connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
    thread.join(5)


def given(**more: Any) -> dict[str, Any]:
    return {
        "host": "p0",
        "peers": [],
        "pings": [],
        "hccn_tool": str(FAKES / "hccn_tool"),
        "timeout_s": 5,
        "interval_s": 0.05,
        "at_once": 8,
        **more,
    }


def test_an_ssh_server_is_known_by_its_greeting() -> None:
    with greeter(b"SSH-2.0-OpenSSH_9.2p1\r\n") as port:
        found = reach(given(peers=[["p1", "127.0.0.1", port]]))["reached"]
    assert found[0]["ms"] >= 0
    del found[0]["ms"]
    assert found == [
        {
            "name": "p1",
            "address": "127.0.0.1",
            "port": port,
            "ok": True,
            "state": "ok",
            "found": "SSH-2.0-OpenSSH_9.2p1",
        }
    ]


def test_a_closed_port_is_refused() -> None:
    found = reach_port("p1", "127.0.0.1", free_port(), 5)
    assert (found["ok"], found["state"]) == (False, "refused")
    assert found["found"] == "connection refused"


def test_another_server_on_the_port_is_not_ssh() -> None:
    with greeter(b"HTTP/1.1 400 Bad Request\r\n", b"") as port:
        found = reach_port("p1", "127.0.0.1", port, 5)
        assert (found["state"], found["ok"]) == ("refused", False)
        assert "it says 'HTTP/1.1 400 Bad Request'" in found["found"]
        found = reach_port("p1", "127.0.0.1", port, 0.2)
        assert found["found"].endswith("it says nothing")


def test_a_silent_machine_takes_no_longer_than_the_time_allowed() -> None:
    # Connections to a full backlog are not answered: like a firewall that drops.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        started = time.monotonic()
        found = reach(
            given(peers=[[f"p{n}", *address] for n in range(4)], timeout_s=0.5, at_once=4)
        )["reached"]
        took = time.monotonic() - started
        for filler in fillers:
            filler.close()
    assert [one["state"] for one in found] == ["silent"] * 4
    assert found[0]["found"] == "no answer within 0.5 s"
    assert took < 1.9  # side by side, not 4 times 0.5 s


def test_a_name_that_is_no_address_is_an_answer_too() -> None:
    found = reach_port("p1", "host.invalid", 22, 5)
    assert found["state"] == "silent" and found["found"]


def test_pings_that_come_back_are_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reach(given(pings=[[0, "10.1.1.100"], [1, "10.1.1.101"]]))["pings"]
    assert found == [
        {"device": 0, "peer_ip": "10.1.1.100", "ok": True, "found": "3 of 3 packets came back"},
        {"device": 1, "peer_ip": "10.1.1.101", "ok": True, "found": "3 of 3 packets came back"},
    ]


def test_inside_of_a_super_pod_pings_go_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    found = reach(given(pings=[[0, "192.168.1.100"]], device_ping="hccs_ping"))["pings"]
    assert found[0]["ok"]
    assert (tmp_path / "calls").read_text() == (
        "hccn_tool -i 0 -hccs_ping -g address 192.168.1.100\n"
    )


def test_a_lost_ping_is_told_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PING_LOST", "10.1.1.101")
    found = reach(given(pings=[[0, "10.1.1.100"], [0, "10.1.1.101"]]))["pings"]
    assert [(one["ok"], one["found"]) for one in found] == [
        (True, "3 of 3 packets came back"),
        (False, "0 of 3 packets came back"),
    ]


def test_a_busy_tool_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PING", "busy-once")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    found = reach(given(pings=[[0, "10.1.1.100"], [1, "10.1.1.100"]]))["pings"]
    assert [one["ok"] for one in found] == [True, True]
    assert len((tmp_path / "log").read_text().splitlines()) == 4


def test_a_tool_that_stays_busy_says_so(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho hccn_tool is busy, please try again.; exit 1\n")
    tool.chmod(0o755)
    found = reach(given(pings=[[0, "10.1.1.100"]], hccn_tool=str(tool), timeout_s=0.3))["pings"]
    assert found[0]["ok"] is False and "is busy" in found[0]["found"]


def test_a_hanging_tool_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PING", "hang")
    found = reach(given(pings=[[0, "10.1.1.100"]], timeout_s=0.3))["pings"]
    assert found[0]["ok"] is False
    assert found[0]["found"].startswith("no answer within 0.3 s from: ")


def test_a_missing_tool_is_named() -> None:
    found = reach(given(pings=[[0, "10.1.1.100"]], hccn_tool="/no/hccn_tool"))["pings"]
    assert found[0]["found"] == "cannot start /no/hccn_tool: No such file or directory."


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        ("hccn_tool-ping.healthy.txt", 0, (True, "3 of 3 packets came back")),
        ("hccn_tool-ping.lost.txt", 1, (False, "0 of 3 packets came back")),
        (
            "3 packets transmitted, 2 received, 33.33% packet loss",
            0,
            (False, "2 of 3 packets came back"),
        ),
        (
            "0 packets transmitted, 0 received, 0.00% packet loss",
            0,
            (False, "0 of 0 packets came back"),
        ),
        ("", 0, (False, "exit status 0, no words")),
        ("Cmd exec failed!", 1, (False, "hccn_tool says: Cmd exec failed!")),
    ],
)
def test_what_the_tool_prints_is_understood(
    said: str, code: int, expected: tuple[bool, str]
) -> None:
    text = (FACTS / said).read_text() if said.endswith(".txt") else said
    assert ping_answer(text, code) == expected


def test_the_ping_is_one_command() -> None:
    assert ping_argv("hccn_tool", 3, "10.1.1.100") == [
        *("hccn_tool", "-i", "3", "-ping", "-g", "address", "10.1.1.100")
    ]
    assert os.access(FAKES / "hccn_tool", os.X_OK)
