"""Address, interface and ways to the others, with the real ip and with recorded answers of it."""

from __future__ import annotations

import pytest
from check_cases import ids, look, one, parameters, tools

from hostkit.checks import network as checks_network
from hostkit.checks.network import is_own

PEERS = [["d0", "127.0.0.2"]]
REAL = tools(ip="ip")


def network(folder, **more):
    return look(checks_network.look, parameters(folder, **more))


@pytest.mark.needs("ip")
def test_this_machine_with_peers_on_the_loopback(tmp_path):
    group = network(tmp_path, peers=PEERS, ranktable=REAL, interface="lo")
    assert ids(group) == ["network.address", "network.interface", "network.routes"]
    assert {entry["state"] for entry in group.checks} == {"ok"}
    assert group.facts["routes"] == {"127.0.0.2": "lo"}
    assert one(group, "network.interface")["found"].startswith("lo (hosts.p0.interface), 127.0.0.1")


def test_a_single_host_has_no_ways_to_others(tmp_path):
    group = network(tmp_path, ranktable=REAL)
    assert "network.routes" not in ids(group) and "routes" not in group.facts


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("localhost", True), ("198.51.100.7", False), ("p0.invalid", False)],
)
def test_own_addresses(tmp_path, address, own):
    assert is_own(address) is own
    entry = one(network(tmp_path, address=address), "network.address")
    assert entry["state"] == ("ok" if own else "failed")
    assert ("hosts.p0.address" in entry["todo"]) != own


def test_loopback_as_planned_address_when_others_are_elsewhere(tmp_path):
    entry = one(network(tmp_path, peers=[["d0", "10.0.0.12"]], ranktable=REAL), "network.address")
    assert (entry["state"], entry["found"]) == (
        "failed",
        "127.0.0.1, which no other host can reach",
    )


def test_the_interface_of_the_default_route(tmp_path):
    entry = one(network(tmp_path), "network.interface")
    assert (entry["state"], entry["found"]) == ("ok", "enp23s0f3 (the default route), 10.0.0.11")


@pytest.mark.parametrize(("peers", "state"), [(PEERS, "failed"), ([], "warning")])
def test_no_default_route(tmp_path, monkeypatch, peers, state):
    monkeypatch.setenv("FAKE_IP", "no-route")
    entry = one(network(tmp_path, peers=peers), "network.interface")
    assert (entry["state"], entry["found"]) == (
        state,
        "none (the default route): there is no default route",
    )


def test_a_configured_interface_that_is_not_there(tmp_path):
    entry = one(network(tmp_path, interface="eth9"), "network.interface")
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"] == (
        "eth9 (hosts.p0.interface): it has no address; those with one: lo, docker0, enp23s0f3"
    )


def test_loopback_as_the_interface_to_other_hosts(tmp_path):
    more = {"interface": "lo", "address": "198.51.100.7", "peers": [["d0", "10.0.0.12"]]}
    entry = one(network(tmp_path, **more), "network.interface")
    assert entry["found"] == "lo (hosts.p0.interface): no other host can be reached over it"


@pytest.mark.needs("ip")
def test_a_peer_without_a_way_and_one_that_cannot_be_resolved(tmp_path):
    peers = [["d0", "127.0.0.2"], ["d1", "no-such-host.invalid"], ["d2", "255.255.255.256"]]
    group = network(tmp_path, peers=peers, ranktable=REAL)
    entry = one(group, "network.routes")
    assert entry["state"] == "failed"
    assert entry["found"] == "none to d1 (no-such-host.invalid), d2 (255.255.255.256)"
    assert entry["todo"] == "ip route get no-such-host.invalid"
    assert group.facts["routes"] == {"127.0.0.2": "lo"}


def test_a_host_without_ip(tmp_path):
    group = network(tmp_path, ranktable=tools(ip="no-such-ip"))
    entry = one(group, "network.interface")
    assert (entry["state"], entry["found"]) == (
        "failed",
        "cannot start no-such-ip: No such file or directory.",
    )
