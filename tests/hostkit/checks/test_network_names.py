"""A host's name and what it resolves to."""

from __future__ import annotations

import socket
import subprocess
import threading

import pytest
from check_cases import limits, look, one, parameters

from hostkit.checks import network as checks_names
from hostkit.checks.network import is_loopback, mend, name_problem, suggestion

PEERS = [["d0", "10.0.0.12"]]


def names(folder, **more):
    return look(checks_names.look_at_names, parameters(folder, **more))


def test_the_facts_are_those_of_this_machine(tmp_path):
    facts = names(tmp_path).facts
    assert facts["hostname"] == socket.gethostname()


@pytest.mark.parametrize(
    ("address", "peers", "state", "required"),
    [
        ("10.0.0.11", PEERS, "failed", True),
        ("10.0.0.11", [], "warning", False),
        ("127.0.0.1", [["d0", "127.0.0.2"]], "ok", False),  # all on one machine
    ],
)
def test_a_name_that_resolves_to_loopback(tmp_path, address, peers, state, required):
    group = names(tmp_path, hostname="localhost", address=address, peers=peers)
    entry = one(group, "names.resolve")
    assert (entry["state"], entry["required"]) == (state, required)
    assert group.facts["resolves_to"][0] in ("127.0.0.1", "::1")
    if state != "ok":
        assert entry["todo"].endswith("echo '10.0.0.11 localhost' >> /etc/hosts")


def test_a_name_that_resolves_to_nothing_is_a_warning(tmp_path):
    entry = one(names(tmp_path, hostname="p0.invalid", peers=PEERS), "names.resolve")
    assert (entry["state"], entry["found"]) == ("warning", "nothing")
    assert entry["todo"] == "echo '127.0.0.1 p0.invalid' >> /etc/hosts"


def test_an_address_is_what_a_name_may_resolve_to(tmp_path):
    entry = one(names(tmp_path, hostname="10.0.0.11", peers=PEERS), "names.resolve")
    assert (entry["state"], entry["found"]) == ("ok", "10.0.0.11")


def test_a_resolver_that_hangs(tmp_path, monkeypatch):
    """A double: a name server that never answers takes the C library longer than a test may."""
    released = threading.Event()
    monkeypatch.setattr(checks_names, "addresses", lambda name: released.wait(60))
    try:
        group = names(tmp_path, hostname="p0", checks=limits(timeout_s=0.1))
        entry = one(group, "names.resolve")
        assert (entry["state"], entry["found"]) == (
            "warning",
            "no answer within 0.1 s from: the resolution of p0",
        )
        assert "resolves_to" not in group.facts
    finally:
        released.set()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("p0", None),
        ("node-17.example.com", None),
        ("42", "is a number"),
        ("10.0.0.1", "is a number"),
        ("my_host", "has the odd part 'my_host'"),
        ("-x", "has the odd part '-x'"),
        ("a..b", "has the odd part ''"),
        ("localhost", "tells nobody which host it is"),
        ("", "tells nobody which host it is"),
    ],
)
def test_odd_names(tmp_path, name, problem):
    assert name_problem(name) == problem
    entry = one(names(tmp_path, hostname=name or "localhost"), "names.host")
    assert entry["state"] == ("warning" if problem else "ok")
    assert entry["todo"] == ("hostnamectl set-hostname p0" if problem else "")


@pytest.mark.parametrize(
    ("name", "made"), [("p0", "p0"), ("my_host", "my-host"), ("42", "host-42"), ("_", "host")]
)
def test_suggested_names_are_fit(name, made):
    assert suggestion(name) == made
    assert name_problem(made) is None


@pytest.mark.parametrize(
    ("text", "loops"),
    [("127.0.1.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("p0", False)],
)
def test_loopback(text, loops):
    assert is_loopback(text) is loops


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.1.1 p0\n", ["127.0.1.1 ", "10.0.0.11 p0"]),
        ("127.0.1.1\tp0.example p0\n", ["127.0.1.1\tp0.example ", "10.0.0.11 p0"]),
        (
            "127.0.0.1 localhost p0\n10.0.0.12 d0\n",
            ["127.0.0.1 localhost ", "10.0.0.12 d0", "10.0.0.11 p0"],
        ),
        ("127.0.0.1 localhost p01\n", ["127.0.0.1 localhost p01", "10.0.0.11 p0"]),
    ],
)
def test_the_command_that_mends_etc_hosts_really_does(tmp_path, before, after):
    hosts = tmp_path / "hosts"
    hosts.write_text(before)
    command = mend("p0", "10.0.0.11").replace("/etc/hosts", str(hosts))
    subprocess.run(["bash", "-c", command], check=True)
    assert hosts.read_text().splitlines() == after
