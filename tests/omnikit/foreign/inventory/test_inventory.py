"""Ansible inventories for omni-infer, used as they are: the plan follows omni-infer's rules."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from foreign_files import (
    FOUR_P,
    MULTI_HOST,
    SINGLE_NODE,
    TWO_P,
    TWO_P16,
    edited,
    line_of,
    mistake,
    planned,
)

from omnikit.config import config
from omnikit.plan.arguments import flag
from omnikit.topology.topology import make_plan


def test_2p1d_follows_the_template_convention() -> None:
    plan = planned(TWO_P)
    assert [(n.name, n.address) for n in plan.nodes] == [
        *(("p0", "192.0.2.11"), ("p1", "192.0.2.12")),
        *(("d0", "192.0.2.13"), ("d1", "192.0.2.14")),
    ]
    for rank, node in enumerate(plan.nodes[:2]):
        assert (node.kv_rank, node.master_port, node.master_ip) == (rank, 8000 + rank, node.address)
        assert [s.api_port for s in node.servers] == [9000 + rank]
        assert (node.tensor_parallel, node.dp_size, node.server_offset) == (16, 1, 0)
        assert node.env["SERVER_OFFSET"] == "0"
    for rank, node in enumerate(plan.nodes[2:]):
        assert (node.kv_rank, node.master_ip, node.master_port) == (2, "192.0.2.13", 8100)
        assert [s.api_port for s in node.servers] == [9100 + rank + k for k in range(16)]
        assert [s.dp_rank for s in node.servers] == [16 * rank + k for k in range(16)]
        assert (node.server_offset, node.dp_size, node.tensor_parallel) == (16 * rank, 32, 1)
        assert node.env["LOCAL_DECODE_SERVER_IP_LIST"] == "192.0.2.13,192.0.2.14"
    assert plan.proxy is not None
    assert (plan.proxy.host, plan.proxy.port) == ("p0", 7000)
    assert plan.proxy.prefill == (("192.0.2.11", 9000), ("192.0.2.12", 9001))


def test_2p1d_is_what_our_own_environment_says() -> None:
    """The file holds the conventions that are our defaults: only names and logins differ.

    The containers carry the environment's name.
    """
    ours, brought = make_plan(config.load("2p1d", environ={})), planned(TWO_P)
    for mine, theirs in zip(ours.nodes, brought.nodes):
        mine_offset = int(mine.address.rpartition(".")[2]) - 11
        assert theirs.address == f"192.0.2.{11 + mine_offset}"
        assert theirs.container == f"omnikit_{brought.environment}_{theirs.name}"
        assert mine == replace(theirs, container=mine.container)
    assert ours.proxy is not None and brought.proxy is not None
    assert ours.proxy == replace(brought.proxy, container=ours.proxy.container)
    assert len(ours.nodes) == len(brought.nodes)


def test_4p1d_is_ordered_by_kv_rank_with_variables_from_every_level() -> None:
    plan = planned(FOUR_P)
    assert [n.name for n in plan.nodes] == ["p0", "p1", "p2", "p3", "d0", "d1", "d2", "d3"]
    assert [n.address for n in plan.nodes] == [f"192.0.2.{21 + k}" for k in range(8)]
    assert [n.kv_rank for n in plan.nodes] == [0, 1, 2, 3, 4, 4, 4, 4]
    assert [n.master_port for n in plan.nodes] == [8000, 8001, 8002, 8003] + [8100] * 4
    assert [n.servers[0].api_port for n in plan.nodes] == [
        9000,
        9001,
        9002,
        9003,
        *range(9100, 9104),
    ]
    assert {n.dp_size for n in plan.nodes[4:]} == {64}
    assert plan.proxy is not None
    assert (plan.proxy.host, plan.proxy.address, plan.proxy.port) == ("c0", "192.0.2.29", 7000)
    for host in plan.hosts:
        assert (host.settings.user, host.settings.port) == ("omni", 2222)
        assert host.settings.password is not None
        assert config.read_secret(host.settings.password, "x") == "not-a-real-password"
    assert "not-a-real" not in repr(plan)


def test_hosts_that_share_a_kv_rank_are_one_instance_the_master_first() -> None:
    plan = planned(MULTI_HOST)
    found = [(n.name, n.kv_rank, n.node_rank, n.master_ip, n.master_port) for n in plan.nodes[:4]]
    assert found == [
        ("prefill-0-0", 0, 0, "192.0.2.31", 8000),
        ("prefill-0-1", 0, 1, "192.0.2.31", 8000),
        ("prefill-1-0", 1, 0, "192.0.2.33", 8010),
        ("prefill-1-1", 1, 1, "192.0.2.33", 8010),
    ]
    assert [len(n.servers) for n in plan.nodes] == [1, 0, 1, 0, 16]
    assert {n.tensor_parallel for n in plan.nodes[:4]} == {32}
    assert plan.nodes[4].kv_rank == 2
    assert plan.proxy is not None
    assert plan.proxy.prefill == (("192.0.2.31", 9000), ("192.0.2.33", 9010))


def test_several_prefill_instances_on_one_host(tmp_path: Path) -> None:
    devices = '"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"\n\n    D:'
    path = edited(
        tmp_path,
        TWO_P,
        ("192.0.2.12", "192.0.2.11"),
        ("192.0.2.12", "192.0.2.11"),
        ('"{{ all_devices }}"', '"0,1,2,3,4,5,6,7"'),
        (devices, '"8,9,10,11,12,13,14,15"\n\n    D:'),
    )
    plan = planned(path)
    found = [(n.name, n.host, n.devices[0], n.servers[0].api_port) for n in plan.nodes[:2]]
    assert found == [("p0", "p0", 0, 9000), ("p1", "p0", 8, 9001)]


def several_on_one_host(folder: Path) -> Path:
    """Upstream's layout of two prefill instances on each of two hosts, numbered across the hosts;
    the second decode host has a prefill instance too."""
    low, high = ",".join(map(str, range(8))), ",".join(map(str, range(8, 16)))

    def host(address: str, devices: str, **more: object) -> dict[str, object]:
        return {"ansible_host": address, "ascend_rt_visible_devices": devices, **more}

    prefill = {
        name: host(address, devices, host_ip=address, kv_rank=rank)
        for name, address, rank, devices in (
            ("pz", "192.0.2.12", 3, high),
            ("pa", "192.0.2.11", 2, high),
            ("py", "192.0.2.11", 0, low),
            ("pb", "192.0.2.12", 1, low),
            ("px", "192.0.2.14", 4, high),
        )
    }
    ports = {"node_port": "{{ 8000 + kv_rank }}", "api_port": "{{ 9000 + kv_rank }}"}
    master = {"node_port": 8100, "api_port": "{{ 9100 + node_rank }}", "host_ip": "192.0.2.13"}
    decode = {
        "d1": host("192.0.2.14", low, node_rank=1),
        "d0": host("192.0.2.13", f"{low},{high}", node_rank=0),
    }
    proxy = {"c0": {"ansible_host": "192.0.2.11", "node_port": 7000}}
    children = {
        "P": {"vars": ports, "hosts": prefill},
        "D": {"vars": master, "hosts": decode},
        "C": {"hosts": proxy},
    }
    path = folder / "several.yml"
    path.write_text(yaml.safe_dump({"all": {"children": children}}, sort_keys=False))
    return path


def test_several_instances_on_a_host_have_devices_ports_and_names_of_their_own(
    tmp_path: Path,
) -> None:
    plan = planned(several_on_one_host(tmp_path))
    found = [
        (n.name, n.address, n.kv_rank, n.devices[0], n.servers[0].api_port) for n in plan.nodes
    ]
    assert found == [
        ("py", "192.0.2.11", 0, 0, 9000),
        ("pb", "192.0.2.12", 1, 0, 9001),
        ("pa", "192.0.2.11", 2, 8, 9002),
        ("pz", "192.0.2.12", 3, 8, 9003),
        ("px", "192.0.2.14", 4, 8, 9004),
        ("d0", "192.0.2.13", 5, 0, 9100),
        ("d1", "192.0.2.14", 5, 0, 9101),
    ]
    assert [len(n.servers) for n in plan.nodes[5:]] == [16, 8]
    assert [n.server_offset for n in plan.nodes[5:]] == [0, 16]
    assert len({(n.address, n.zmq_port) for n in plan.nodes[:5]}) == 5
    assert plan.proxy is not None
    assert plan.proxy.prefill[1] == ("192.0.2.12", 9001)


def test_upstreams_2p16_1d32_is_one_decode_instance(tmp_path: Path) -> None:
    """PA, PB and D0 are groups for order alone: D0 is all that is in D."""
    text = TWO_P16.read_text().replace("127.0.0.", "192.0.2.")
    path = tmp_path / TWO_P16.name
    path.write_text(text)
    plan = planned(path)
    assert [n.kv_rank for n in plan.nodes] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert [n.master_port for n in plan.nodes] == [8000, 8000, 8010, 8010, *[8100] * 4]
    assert [n.tensor_parallel for n in plan.nodes] == [32] * 4 + [1] * 4
    assert [len(n.servers) for n in plan.nodes] == [1, 0, 1, 0, 16, 16, 16, 16]
    assert {n.dp_size for n in plan.nodes[4:]} == {64}
    assert {n.env["PREFILL_POD_NUM"] for n in plan.nodes} == {"2"}


def test_upstreams_2p16_1d32_is_planned_for_the_roles_of_2026(tmp_path: Path) -> None:
    path = tmp_path / TWO_P16.name
    path.write_text(TWO_P16.read_text().replace("127.0.0.", "192.0.2."))
    given = ["profile.omni_version=2026-09", "profile.model=openpangu-2.0-flash"]
    plan = make_plan(config.load(None, [str(path)], given, environ={}))
    heads = [n for n in plan.nodes if n.role == "prefill" and n.servers]
    assert [(n.name, n.tensor_parallel, n.ray[2]) for n in heads] == [
        ("p0", 32, "--head"),
        ("p2", 32, "--head"),
    ]
    assert [flag(n, "distributed-executor-backend") for n in heads] == ["ray", "ray"]
    decode = [n for n in plan.nodes if n.role == "decode"]
    assert {flag(n, "data-parallel-size") for n in decode} == {"64"}
    assert [n.server_offset for n in decode] == [0, 16, 32, 48]
    ranks = [words[words.index("--data-parallel-rank") + 1] for n in decode for s in n.servers
             for words in [n.argv(s)]]  # fmt: skip
    assert ranks == [str(rank) for rank in range(64)]


def test_the_groups_of_d_are_a_decode_instance_each(tmp_path: Path) -> None:
    """As omni-infer's elastic playbook has them from October 2025 on, and its roles of 2026."""
    text = TWO_P16.read_text().replace("127.0.0.", "192.0.2.")
    head, _, tail = text.partition("            d2:")
    tail = tail.replace('"192.0.2.5"', '"192.0.2.7"').replace("rank: 2", "rank: 0")
    tail = tail.replace("rank: 3", "rank: 1")
    path = tmp_path / TWO_P16.name
    path.write_text(f"{head}        D1:\n          hosts:\n            d2:{tail}")
    said = mistake(path)
    assert "found 2 decode instances, v0.4.1 has one" in said
    assert said.startswith(line_of(path, "d0:"))
    given = ["profile.omni_version=2026-09", "profile.model=openpangu-2.0-flash"]
    plan = make_plan(config.load(None, [str(path)], given, environ={}))
    decode = [n for n in plan.nodes if n.role == "decode"]
    assert [(n.name, n.instance, n.server_offset) for n in decode] == [
        *(("d0", 0, 0), ("d1", 0, 16)),
        *(("d2", 1, 0), ("d3", 1, 16)),
    ]
    assert [n.servers[0].api_port for n in decode] == [9100, 9101, 9100, 9101]
    assert {n.master_ip for n in decode} == {"192.0.2.5", "192.0.2.7"}
    assert {n.env["OMNI_PD_DECODE_POD_NUM"] for n in plan.nodes} == {"2"}
    assert plan.proxy is not None and len(plan.proxy.decode) == 64


ELASTIC = """all:
  vars: {node_port: 8100, ascend_rt_visible_devices: "0,1"}
  children:
    P: {hosts: {p0: {ansible_host: 192.0.2.1, kv_rank: 0, node_port: 8000, api_port: 9000}}}
    C: {hosts: {c0: {ansible_host: 192.0.2.1, node_port: 7000}}}
    D:
      hosts:
        d0: {ansible_host: 192.0.2.2, host_ip: 192.0.2.2, api_port: 9100}
        d1: {ansible_host: 192.0.2.3, host_ip: 192.0.2.3, api_port: 9100}
      children:
        D0: {hosts: {d0: }}
        D1: {hosts: {d1: }}
"""


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        (("{d1: }", "{d0: }"), "d0: {ansible", "d0 of group D is in D0 and in D1: each of"),
        (("{d1: }", "{d1: , d0: }"), "d0: {ansible", "d0 of group D is in D0 and in D1"),
        (("      children", "        d9: {}\n      children"), "d9", "none of its groups D0, D1"),
        (("host_ip: 192.0.2.3", "host_ip: 192.0.2.2"), "d1: {ans", "of the decode instance D1 is"),
    ],
)
def test_groups_of_d_that_are_no_instances_are_refused(
    change: tuple[str, str], at: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "elastic.yml"
    path.write_text(ELASTIC)
    assert "found 2 decode instances" in mistake(path)
    path.write_text(ELASTIC.replace(*change, 1))
    said = mistake(path)
    assert said.startswith(line_of(path, at)) and what in said, said


def test_upstreams_single_node_file_is_planned_for_the_releases_that_it_is_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / SINGLE_NODE.name
    path.write_text(SINGLE_NODE.read_text().replace("127.0.0.1", "192.0.2.1"))
    given = ["profile.omni_version=2026-09", "profile.model=openpangu-2.0-flash"]
    plan = make_plan(config.load(None, [str(path)], given, environ={}))
    assert [(n.name, n.host, n.devices) for n in plan.nodes] == [
        ("p0", "p0", tuple(range(8))),
        ("d0", "p0", tuple(range(8, 16))),
    ]
    decode = plan.nodes[1]
    told = [decode.environment(s)["ASCEND_RT_VISIBLE_DEVICES"] for s in decode.servers]
    assert told == [str(device) for device in range(8, 16)]


def test_upstreams_single_node_file_needs_decode_on_the_first_devices(tmp_path: Path) -> None:
    """It is for later releases: decode servers of v0.4.1 count their devices from 0."""
    low, high = '"0,1,2,3,4,5,6,7"', '"8,9,10,11,12,13,14,15"'
    text = SINGLE_NODE.read_text().replace("127.0.0.1", "192.0.2.1")
    path = tmp_path / SINGLE_NODE.name
    path.write_text(text)
    said = mistake(path)
    assert said.startswith(f"{line_of(path, high)}: ") and "d0" in said and "0-7" in said, said
    path.write_text(text.replace(low, "LOW").replace(high, low).replace("LOW", high))
    plan = planned(path)
    assert [(n.name, n.host, n.devices[0]) for n in plan.nodes] == [
        ("p0", "p0", 8),
        ("d0", "p0", 0),
    ]
    assert plan.proxy is not None and plan.proxy.host == "p0"
    assert [n.servers[0].api_port for n in plan.nodes] == [9000, 9100]


def test_without_node_rank_the_host_of_host_ip_is_the_master(tmp_path: Path) -> None:
    """As omni_cli writes decode hosts; upstream puts the master first, wherever it stands."""
    text = TWO_P.read_text().replace("port_offset.D + node_rank", "port_offset.D")
    head, decode, rest = text.partition("    D:\n")
    text = head + decode + re.sub(r" +node_rank: \d\n", "", rest, count=2)
    text = text.replace('host_ip: "192.0.2.13"', 'host_ip: "192.0.2.14"')
    path = tmp_path / TWO_P.name
    path.write_text(text)
    plan = planned(path)
    assert [(n.name, n.node_rank, n.address) for n in plan.nodes[2:]] == [
        ("d1", 0, "192.0.2.14"),
        ("d0", 1, "192.0.2.13"),
    ]
    assert plan.nodes[2].env["LOCAL_DECODE_SERVER_IP_LIST"] == "192.0.2.14,192.0.2.13"


def test_what_nobody_reads_is_named_with_line_and_reason(tmp_path: Path) -> None:
    more = (
        "    etcd_port: 6000\n    mooncake_master_port: 6001\n    ansible_become: yes\n"
        "    ansible_become_password: hunter2\n    LOG_PTH: /l\n    port_offset:"
    )
    path = edited(
        tmp_path,
        TWO_P,
        ("    port_offset:", more),
        ('          role: "C"', '          role: "D"'),
        ("    C:\n", "    X:\n      hosts: {x0: {}}\n    C:\n"),
    )
    notes = config.load(None, [str(path)], environ={}).notes
    for at, what in (
        ("common_args", "StrictHostKeyChecking=no is not used: host keys are checked"),
        ("role:", "role: D is not used: c0 is in the group C, where it would be C"),
        ("x0", "the host x0 is not used"),
        ("etcd_port", "etcd_port, mooncake_master_port (line"),
        ("ansible_become:", "ansible_become, ansible_become_password (line"),
        ("LOG_PTH", "nothing here reads it, is LOG_PATH meant?"),
    ):
        assert any(note.startswith(f"{line_of(path, at)}: ") and what in note for note in notes), at
    assert len(notes) == 6
    assert "hunter2" not in str(notes)
    (tmp_path / "group_vars").mkdir()
    assert "group_vars: not used" in config.load(None, [str(path)], environ={}).notes[-1]


def test_the_shipped_inventories_use_all_that_they_say() -> None:
    for path in (TWO_P, FOUR_P, MULTI_HOST):
        notes = config.load(None, [str(path)], environ={}).notes
        assert not [note for note in notes if "StrictHost" not in note and "become" not in note]


def test_a_setting_of_decode_hosts_alone_counts_too(tmp_path: Path) -> None:
    path = edited(
        tmp_path, TWO_P, ("    D:\n", "    D:\n      vars: {MODEL_LEN_MAX_DECODE: 8192}\n")
    )
    assert "8192" in planned(path).nodes[2].command


def test_groups_of_later_releases_are_refused(tmp_path: Path) -> None:
    for name, what in (("E", "encoders"), ("M", "Mooncake")):
        path = edited(
            tmp_path, TWO_P, ("    C:\n", f"    {name}: {{hosts: {{x0: {{}}}}}}\n    C:\n")
        )
        said = mistake(path)
        assert said.startswith(f"{line_of(path, name + ':')}: the group {name}") and what in said


def test_files_from_before_kv_rank_count_node_rank(tmp_path: Path) -> None:
    text = (
        TWO_P.read_text().replace("          kv_rank: 0\n", "").replace("+ kv_rank", "+ node_rank")
    )
    text = text.replace(
        "          node_rank: 0\n          kv_rank: 1\n", "          node_rank: 1\n"
    )
    text = text.replace('          host_ip: "192.0.2.13"\n', "")
    path = tmp_path / TWO_P.name
    path.write_text(text)
    assert planned(path).nodes == planned(TWO_P).nodes


def test_settings_of_the_playbook_may_stand_in_the_inventory(tmp_path: Path) -> None:
    more = (
        "    MODEL_PATH: /data/m\n    LOG_PATH: '{{ base_log }}/x'\n    base_log: /l\n"
        "    MODEL_LEN_MAX_PREFILL: '31000'\n    DOCKER_IMAGE_ID: r:t\n"
        "    DOCKER_NAME_P: their_prefill\n"
        "    DECODE_TENSOR_PARALLEL_SIZE: 2\n    global_port_base"
    )
    path = edited(tmp_path, TWO_P, ("    global_port_base", more))
    settings = config.load(str(path), environ={}).settings
    assert (settings.model.path, settings.paths.log_dir) == ("/data/m", "/l/x")
    assert settings.container.image == "r:t"
    plan = planned(path)
    assert plan.nodes[0].container == "their_prefill_p0"  # as their playbook calls it
    assert "31000" in plan.nodes[0].command
    assert plan.nodes[2].tensor_parallel == 2
    assert len(plan.nodes[2].servers) == 8


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        (("port_offset.P + kv_rank", "port_ofset.P"), "port_ofset.P", "is it 'port_offset'?"),
        (("global_port_base + port_offset.P", "global_port_base + x"), "+ x", "'x' is undefined"),
        (("port_offset.D }}", "port_offset.E }}"), "offset.E", "has no attribute 'E'"),
        (("kv_rank: 1", "kv_rank: 2"), "kv_rank: 2", "no prefill host has 1"),
        (("kv_rank: 1", "kv_rank: 0"), "node_rank: 0", "have the same node_rank 0"),
        (("kv_rank: 1", "kv_rank: x"), "kv_rank: x", "found 'x', expected a whole number"),
        (("          kv_rank: 1\n", ""), "        p1:", "p1 of group P has no kv_rank"),
        (("node_port", "node_prt"), "node_prt", "is 'node_prt' meant for it?"),
        (("ascend_rt_visible_devices: ", "devices: "), "p0:", "no ascend_rt_visible_devices"),
        (('"{{ all_devices }}"', "0-15"), "0-15", "devices of p0: found '0-15'"),
        (("ansible_user", "ansible_usr"), "ansible_usr", "is it ansible_user?"),
        (
            ("    C:\n", "    c:\n"),
            "all:",
            "no group C (the host of the proxy), found: P, D, c; is",
        ),
        (("    P:\n      hosts:", "    P:\n      host:"), "      host:", "is it 'hosts'?"),
        (("        c0:", "        c1: {}\n        c0:"), "c0:", "found 2 hosts in C"),
        (("        d0:", "        p0:"), "p0:", "is in P and in D"),
        (("        d1:", "        d[1:3]:"), "d[1:3]", "host range"),
        (("node_rank: 1", "node_rank: 0"), None, "d0 and d1 of the decode instance have the same"),
        (("proxy_port: 7000", "proxy_port: 9000"), None, "used twice: by the API of p0"),
        (("      D: 100", "      D: 0\n    a: [*b]"), None, "not valid YAML"),
        (('ansible_host: "192.0.2.14"', 'ansible_host: "192.0.2.13"'), None, "in this instance al"),
    ],
)
def test_mistakes_are_named_with_their_line(
    tmp_path: Path, change: tuple[str, str], at: str | None, what: str
) -> None:
    path = edited(tmp_path, TWO_P, change)
    said = mistake(path)
    assert what in said, said
    assert "What to do: " in said
    occurrence = 2 if at == "node_rank: 0" else 1
    assert said.startswith(f"{path}:" if at is None else line_of(path, at, occurrence)), said


def test_every_host_of_an_instance_names_the_masters_address(tmp_path: Path) -> None:
    text = TWO_P.read_text()
    head, _, tail = text.partition('ansible_host: "192.0.2.14"')
    path = tmp_path / "i.yml"
    path.write_text(
        f'{head}ansible_host: "192.0.2.14"{tail.replace("192.0.2.13", "192.0.2.14", 1)}'
    )
    said = mistake(path)
    assert said.startswith(
        f"{line_of(path, 'host_ip', 4)}: host_ip of d1 is 192.0.2.14, the master"
    )
    assert "only one decode instance" in said
    assert 'write host_ip: "192.0.2.13"' in said


def test_a_second_decode_instance_is_refused_with_the_reason(tmp_path: Path) -> None:
    second = (
        "        d2: {ansible_host: 192.0.2.19, host_ip: 192.0.2.19, node_rank: 0, node_port: 8100,"
        ' api_port: 9100, ascend_rt_visible_devices: "0,1"}\n\n    C:'
    )
    path = edited(tmp_path, TWO_P, ("\n    C:", second))
    said = mistake(path)
    assert said.startswith(f"{line_of(path, 'd2:')}: host_ip of d2 is 192.0.2.19, the master of")
    assert "only one decode instance is supported" in said


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("all:\n  hosts: {a: {}}\n", "no group P (the prefill hosts), found: none"),
        ("all:\n  children: {P: {hosts: {}}, D: {}, C: {}}\n", "the group P has no hosts"),
        ("P:\n  hosts: [a, b]\n", "hosts of the group P: found a list, expected a map"),
        ("all: x\n", "the group all: found 'x', expected a map"),
        ("[P]\np0 ansible_host=1.2.3.4\n", "INI format, only YAML is read"),
    ],
)
def test_what_is_hardly_an_inventory_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "i.yml"
    path.write_text(text)
    assert what in mistake(path)
