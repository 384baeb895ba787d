"""What must be unique or in step over all hosts: each rule kept and broken."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from omnikit.checks.fleet_checks import clocks, compare, device_ips, host_names, routes


def given(
    peers: dict[str, str], interface: Optional[str] = None, skew: float = 2
) -> dict[str, Any]:
    return {
        "interface": interface,
        "peers": [[name, address] for name, address in peers.items()],
        "checks": {"clock_skew_s": skew},
    }


def test_host_names_are_unique() -> None:
    found = host_names({"a": {"hostname": "n1"}, "b": {"hostname": "n2"}})
    assert {one["state"] for one in found.values()} == {"ok"}
    found = host_names({"a": {"hostname": "n"}, "b": {"hostname": "n"}, "c": {"hostname": "m"}})
    assert [one["state"] for one in found.values()] == ["warning", "warning", "ok"]
    assert found["a"]["found"] == "n, on a, b"
    assert found["a"]["todo"] == "hostnamectl set-hostname NAME, for example a"
    assert host_names({"a": {"hostname": "n"}}) == {}


PEERS = {"p1": "10.0.0.12", "d0": "10.0.0.13"}


@pytest.mark.parametrize(
    ("by_peer", "interface", "state"),
    [
        ({"10.0.0.12": "eth0", "10.0.0.13": "eth0"}, None, "ok"),
        ({"10.0.0.12": "eth0", "10.0.0.13": "eth0"}, "eth0", "ok"),
        ({"10.0.0.12": "eth0", "10.0.0.13": "eth0"}, "eth1", "failed"),
        ({"10.0.0.12": "eth0", "10.0.0.13": "eth1"}, None, "failed"),
        ({"10.0.0.12": "eth0", "10.0.0.13": "eth1"}, "eth0", "failed"),
        ({"10.0.0.12": "lo", "10.0.0.13": "lo"}, None, "failed"),
        ({"127.0.0.2": "lo"}, None, "ok"),  # hosts that share one machine
    ],
)
def test_all_peers_are_reached_by_one_interface(
    by_peer: dict[str, str], interface: Optional[str], state: str
) -> None:
    found = routes({"p0": {"routes": by_peer}}, {"p0": given(PEERS, interface)})
    assert found["p0"]["state"] == state


def test_a_wrong_interface_is_said_with_the_right_one() -> None:
    facts = {"p0": {"routes": {"10.0.0.12": "eth0", "10.0.0.13": "eth0"}}, "p1": {}}
    found = routes(facts, {"p0": given(PEERS, "eth1"), "p1": given({})})
    assert list(found) == ["p0"]
    assert found["p0"]["found"] == "eth0 to p1, d0"
    assert found["p0"]["needed"] == "eth1 (hosts.p0.interface), which the servers use"
    assert found["p0"]["todo"] == "set hosts.p0.interface: eth0"


@pytest.mark.parametrize(("default", "state"), [("eth0", "ok"), ("eth9", "failed"), (None, "ok")])
def test_without_a_configured_interface_the_default_routes_must_lead_to_the_peers(
    default: Optional[str], state: str
) -> None:
    facts = {"p0": {"routes": {"10.0.0.12": "eth0"}, "interface": default}}
    found = routes(facts, {"p0": given(PEERS)})["p0"]
    assert found["state"] == state
    if default:
        assert found["needed"] == f"{default} (of the default route), which the servers use"


def test_device_addresses_are_unique_over_the_fleet() -> None:
    good = {"a": {"device_ips": {"0": "10.1.0.1"}}, "b": {"device_ips": {"0": "10.1.0.2"}}}
    assert {one["state"] for one in device_ips(good).values()} == {"ok"}
    bad = {**good, "c": {"device_ips": {"3": "10.1.0.1"}}, "d": {}}
    found = device_ips(bad)
    assert {host: one["state"] for host, one in found.items()} == {
        "a": "failed",
        "b": "ok",
        "c": "failed",
    }
    assert found["c"]["found"] == "10.1.0.1 is device 0 of a and device 3 of c"


def test_a_device_address_that_stands_twice_on_one_host_is_found() -> None:
    found = device_ips({"a": {"device_ips": {"0": "10.1.0.1", "1": "10.1.0.1"}}})
    assert found["a"]["found"] == "10.1.0.1 is device 0 of a and device 1 of a"


@pytest.mark.parametrize(
    ("clock", "state", "said"),
    [
        (105.0, "ok", "within the 10.0 s"),
        (98.5, "ok", "give or take 2 s"),
        (111.9, "ok", "within"),
        (97.0, "warning", "at least 3.0 s behind this machine's clock"),
        (3710.0, "warning", "at least 3600.0 s ahead of this machine's clock"),
    ],
)
def test_a_clock_lies_within_the_time_of_the_job(clock: float, state: str, said: str) -> None:
    found = clocks({"a": {"clock": clock}}, {"a": (100.0, 110.0)}, {"a": 2})
    assert found["a"]["state"] == state
    assert said in found["a"]["found"]


def test_all_rules_are_put_together_by_host() -> None:
    facts = {
        "a": {"hostname": "a", "driver_version": "1", "clock": 5.0, "tls": {"0": "0"}},
        "b": {"hostname": "b", "driver_version": "1", "clock": 5.0, "tls": {"0": "0"}},
    }
    found = compare(facts, {host: given({}) for host in facts}, {"a": (5, 5), "b": (5, 5)})
    names = ["fleet.driver", "fleet.tls", "fleet.names", "fleet.clock"]
    assert [one["id"] for one in found["a"]] == [one["id"] for one in found["b"]] == names


def test_one_host_without_accelerators_has_only_its_clock_compared() -> None:
    found = compare(
        {"a": {"hostname": "a", "python": "3.11.2", "clock": 5.0, "tls": None}},
        {"a": given({})},
        {"a": (5, 5)},
    )
    assert [one["id"] for one in found["a"]] == ["fleet.clock"]
