from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranktable_cases import ALL, device_ips, two_p_one_d, two_p_one_d_ips

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable
from hostkit.ranks.check import Instance, Member
from omnikit.prepare import ranktables


@dataclass(frozen=True)
class Node:
    name: str
    role: str
    instance: int
    host: str
    address: str
    node_rank: int
    devices: tuple[int, ...] = ALL


def test_instances_are_ordered_as_the_global_table_is():
    nodes = [
        Node("d1", "decode", 0, "d1", "10.0.0.13", 1),
        Node("d0", "decode", 0, "d0", "10.0.0.12", 0),
        Node("p1", "prefill", 1, "p1", "10.0.0.11", 0),
        Node("p0", "prefill", 0, "p0", "10.0.0.10", 0),
        Node("s0", "colocated", 0, "s0", "10.0.0.14", 0),
    ]
    assert ranktables.table_instances(nodes) == two_p_one_d()


def test_two_p_one_d_of_four_hosts():
    tables = ranktables.planned(two_p_one_d(), two_p_one_d_ips())
    groups = tables.cluster["server_group_list"]
    assert [(g["group_id"], g["server_count"]) for g in groups] == [("0", 1), ("1", 1), ("2", 2)]
    hosts = [[server["server_ip"] for server in group["server_list"]] for group in groups]
    assert hosts == [["10.0.0.10"], ["10.0.0.11"], ["10.0.0.12", "10.0.0.13"]]
    ranks = [
        [int(d["rank_id"]) for s in group["server_list"] for d in s["device"]] for group in groups
    ]
    assert ranks == [list(range(16)), list(range(16)), list(range(32))]
    last = groups[2]["server_list"][1]["device"][15]
    assert last == {"device_id": "15", "device_ip": "10.1.3.115", "rank_id": "31"}


def test_the_files_of_two_p_one_d():
    files = ranktables.planned_files(ranktables.planned(two_p_one_d(), two_p_one_d_ips()), "global")
    joined = "0123456789101112131415"
    common = {"global/global_ranktable_merge.json"}
    assert {host: set(there) for host, there in files.items()} == {
        "p0": common | {f"local_ranktable_10.0.0.10_{joined}.json"},
        "p1": common | {f"local_ranktable_10.0.0.11_{joined}.json"},
        "d0": common | {f"local_ranktable_10.0.0.12_{joined}.json", "local_ranktable_merge.json"},
        "d1": common | {f"local_ranktable_10.0.0.13_{joined}.json", "local_ranktable_merge.json"},
    }
    assert len({there["global/global_ranktable_merge.json"] for there in files.values()}) == 1
    assert files["d0"]["local_ranktable_merge.json"] == files["d1"]["local_ranktable_merge.json"]
    merged = json.loads(files["d0"]["local_ranktable_merge.json"])
    cluster = json.loads(files["p0"]["global/global_ranktable_merge.json"])
    assert cluster["server_group_list"][2]["server_list"] == merged["server_list"]


def test_a_duplicate_device_address_in_the_cluster_names_both_hosts():
    ips: dict[str, Any] = two_p_one_d_ips()
    ips["d1"] = {**ips["d1"], 4: ips["p0"][9]}
    with pytest.raises(InputError) as caught:
        ranktables.planned(two_p_one_d(), ips)
    assert caught.value.what == (
        "global_ranktable_merge.json: device 9 of host p0 (10.0.0.10) and device 4 of host d1 "
        "(10.0.0.13) have the same address 10.1.0.109."
    )


def test_a_host_without_facts_is_named():
    ips = two_p_one_d_ips()
    del ips["d1"]
    with pytest.raises(InputError) as caught:
        ranktables.planned(two_p_one_d(), ips)
    assert caught.value.where == "host 10.0.0.13" and "device 0" in caught.value.what


def _over(name: str, devices: tuple[int, ...], *hosts: int) -> Instance:
    members = tuple(Member(f"h{n}", f"10.0.0.1{n}", devices) for n in hosts)
    return Instance(name, "prefill" if name[0] == "p" else "decode", members)


def test_instances_that_would_share_a_file_name_are_refused():
    ips = {f"h{n}": device_ips(n) for n in range(2)}
    crossing = [_over("p0", (0, 1), 0, 1), _over("d0", (2, 3), 0, 1)]
    with pytest.raises(InputError, match=r"p0 and d0 .*local_ranktable_merge.json"):
        ranktables.planned_files(ranktables.planned(crossing, ips), "global")
    alike = [_over("p0", (1, 12), 0), _over("d0", (11, 2), 0)]
    with pytest.raises(InputError, match=r"both be local_ranktable_10.0.0.10_112.json"):
        ranktables.planned_files(ranktables.planned(alike, ips), "global")


@st.composite
def topologies(draw: st.DrawFn) -> tuple[Instance, ...]:
    """Random instances over up to 12 hosts; each takes whole hosts or slices of one host."""
    made: list[Instance] = []
    host = 0
    count = draw(st.integers(1, 5))
    for index in range(count):
        role = "decode" if index == count - 1 else "prefill"
        width = draw(st.integers(1, 3))
        parts = draw(st.integers(1, 2)) if width == 1 else 1
        order = draw(st.permutations(ALL))
        size = draw(st.integers(1, 16 // parts))
        for part in range(parts):
            devices = tuple(order[part * size : (part + 1) * size])
            members = tuple(
                Member(f"h{host + n}", f"10.0.0.{10 + host + n}", devices) for n in range(width)
            )
            made.append(Instance(f"i{len(made)}", role, members))
        host += width
    return tuple(sorted(made, key=lambda instance: instance.role == "decode"))


@given(topologies())
@settings(max_examples=100, deadline=None)
def test_any_topology_gives_consistent_tables(planned: tuple[Instance, ...]):
    hosts = sorted({member.host for instance in planned for member in instance.members})
    ips = {host: device_ips(number) for number, host in enumerate(hosts)}
    tables = ranktables.planned(planned, ips)
    groups = tables.cluster["server_group_list"]
    assert [group["group_id"] for group in groups] == [str(n) for n in range(len(planned))]
    addresses: list[str] = []
    for instance, group, own in zip(planned, groups, tables.own):
        assert group["server_list"] == own["server_list"]
        devices = [device for server in group["server_list"] for device in server["device"]]
        size = sum(len(member.devices) for member in instance.members)
        assert [device["rank_id"] for device in devices] == [str(rank) for rank in range(size)]
        assert [server["server_ip"] for server in group["server_list"]] == [
            member.address for member in instance.members
        ]
        expected = [ips[m.host][d] for m in instance.members for d in m.devices]
        assert [device["device_ip"] for device in devices] == expected
        addresses += expected
    assert len(set(addresses)) == len(addresses)
    assert ranktable.dumps(tables.cluster) == ranktable.dumps(
        ranktables.planned(planned, ips).cluster
    )


@given(topologies(), st.data())
@settings(max_examples=50, deadline=None)
def test_files_hold_what_the_engine_looks_up(planned: tuple[Instance, ...], data: st.DataObject):
    hosts = sorted({member.host for instance in planned for member in instance.members})
    ips = {host: device_ips(number) for number, host in enumerate(hosts)}
    try:
        files = ranktables.planned_files(ranktables.planned(planned, ips), "global")
    except InputError as error:
        assert "would both be" in error.what  # ids joined without separator can coincide
        return
    instance = data.draw(st.sampled_from(planned))
    for member in instance.members:
        name = (
            ranktable.MERGED_LOCAL
            if len(instance.members) > 1
            else ranktable.local_name(member.address, member.devices)
        )
        own = ranktable.all_servers(json.loads(files[member.host][name]))
        assert [server.address for server in own] == [m.address for m in instance.members]
        cluster = json.loads(files[member.host]["global/global_ranktable_merge.json"])
        assert member.address in {s.address for s in ranktable.all_servers(cluster)}
