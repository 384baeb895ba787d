"""Topologies that are refused, and what is said about each."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load

from hostkit.base.errors import InputError
from omnikit.topology.topology import make_plan

PREFILL = "prefill: [{hosts: [p0]}, {hosts: [p1]}]"
DECODE = "decode: [{hosts: [d0, d1]}]"

# (what is replaced in the fleet, by what, place, message, what to do)
DEFAULTS, ENGINE = "configs/defaults.yaml:", "configs/engines/ascend.yaml:"
REFUSED = [
    (
        DECODE,
        "decode: [{hosts: [d0]}, {hosts: [d1]}]",
        "case.yaml:10",
        "v0.4.1 has one",
        "one entry",
    ),
    (
        DECODE,
        "",
        DEFAULTS,
        "topology.decode: there are prefill instances but no decode",
        "topology.dec",
    ),
    (PREFILL, "", DEFAULTS, "topology.prefill: there are decode instances but no prefill", ""),
    (f"{PREFILL}\n  {DECODE}", "", "case.yaml:10", "nothing to serve", "configs/environments/"),
    (
        DECODE,
        DECODE + "\n  colocated: [{hosts: [p0]}]",
        "case.yaml:11",
        "have no common proxy",
        "two env",
    ),
    ("proxy: p0", "", DEFAULTS, "topology.proxy: prefill and decode need a proxy", "name a host"),
    (
        "proxy: p0",
        "proxy: c0",
        "case.yaml:11",
        "topology.proxy: there is no host 'c0'",
        "p0, p1, d0, d1",
    ),
    (
        "[d0, d1]",
        "[d0, d9]",
        "case.yaml:10",
        "topology.decode.0.hosts.1: there is no host 'd9'",
        "under hosts",
    ),
    (
        "[d0, d1]",
        "[d0, d0]",
        "case.yaml:10",
        "the host d0 stands twice in one instance",
        "name it once",
    ),
    (
        "{hosts: [p1]}",
        "{hosts: [p0]}",
        ENGINE,
        "device 0 of host p0 is given to p0 and to p1",
        "disj",
    ),
    (
        "192.0.2.2}",
        "192.0.2.1}",
        ENGINE,
        "device 0 of host p1 is given to p0 and to p1",
        "disjoint",
    ),
    ("192.0.2.1}", "192.0.2.1, devices: ''}", "case.yaml:4", "p0 has no devices", "0-15"),
    (
        "{hosts: [p1]}",
        "{hosts: [p1], server: {tensor_parallel: 8}}",
        ENGINE,
        "p1 has 16 devices, expected just its tensor parallel size 8",
        "case.yaml:9",
    ),
    (
        "{hosts: [d0, d1]}",
        "{hosts: [d0, d1], server: {tensor_parallel: 3}}",
        ENGINE,
        "d0 has 16 devices, expected a multiple of its tensor parallel size 3",
        "case.yaml:10",
    ),
    ("192.0.2.3", "127.0.0.1", "case.yaml:6", "127.0.0.1 is a loopback address", "interface"),
    ("192.0.2.3", "localhost", "case.yaml:6", "localhost is a loopback address", ""),
    ("192.0.2.3", "192.0.2.333", "case.yaml:6", "found '192.0.2.333', expected an IP address", ""),
    ("192.0.2.3", "'1:2'", "case.yaml:6", "found '1:2', expected an IP address", ""),
    ("192.0.2.3", "0.0.0.0", "case.yaml:6", "this one stands for all addresses", ""),
    (
        "192.0.2.3}",
        "192.0.2.3, node_name: p0}",
        "case.yaml:6",
        "'p0' is also the name of the prefill",
        "",
    ),
    (
        "192.0.2.3}",
        "192.0.2.3, node_name: c0}",
        "case.yaml:6",
        "'c0' is also the name of the proxy",
        "",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "what", "todo"), REFUSED)
def test_a_topology_that_cannot_be_is_refused(
    tmp_path: Path, old: str, new: str, place: str, what: str, todo: str
) -> None:
    assert old in FLEET
    with pytest.raises(InputError) as caught:
        make_plan(load(tmp_path, FLEET.replace(old, new, 1)))
    assert what in caught.value.what
    assert todo in (caught.value.todo or "")
    assert str(caught.value.where).replace(f"{tmp_path}/", "").startswith(place)


def test_a_name_for_one_instance_does_not_do_for_two(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p1]}", "{hosts: [p0], devices: 8-15}")
    text = text.replace("{hosts: [p0]}", "{hosts: [p0], devices: 0-7}")
    text = text.replace("192.0.2.1}", "192.0.2.1, node_name: big}")
    with pytest.raises(InputError, match="2 instances run on the host p0") as caught:
        make_plan(load(tmp_path, text))
    assert caught.value.where == f"{tmp_path}/case.yaml:4"


def test_overlapping_devices_point_at_the_setting_that_gives_them(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p0]}", "{hosts: [p0], devices: 0-7}")
    text = text.replace("{hosts: [p1]}", "\n    {hosts: [p0], devices: 7-15}")
    with pytest.raises(InputError, match="device 7 of host p0") as caught:
        make_plan(load(tmp_path, text))
    assert caught.value.where == f"{tmp_path}/case.yaml:10"
