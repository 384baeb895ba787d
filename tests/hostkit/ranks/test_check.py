"""Each test breaks a right table in one place; the problem must name what, where and whose."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest
from ranktable_cases import ALL, device_ips, two_p_one_d, two_p_one_d_ips

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable
from hostkit.ranks.check import (
    Member,
    check_generated,
    check_global,
    check_local,
    check_merged,
    require,
)
from omnikit.prepare import ranktables

P0 = Member("p0", "10.0.0.10", ALL)


def cluster() -> Any:
    built = ranktables.planned(two_p_one_d(), two_p_one_d_ips())
    return copy.deepcopy(built.cluster)


def server(table: Any, group: int, index: int = 0) -> Any:
    return table["server_group_list"][group]["server_list"][index]


def test_right_tables_have_no_problems():
    assert check_global(cluster(), "g.json", two_p_one_d()) == []
    assert check_global(cluster(), "g.json") == []
    built = ranktables.planned(two_p_one_d(), two_p_one_d_ips())
    assert check_local(built.local[0][0], "l.json", P0) == []
    assert check_merged(built.own[2], "m.json", two_p_one_d()[2].members) == []


def _set(group: int, index: int, device: int, key: str, value: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        server(table, group, index)["device"][device][key] = value

    return change


def _duplicate_ip(table: Any) -> None:
    server(table, 1)["device"][5]["device_ip"] = "10.1.3.102"


def _lose_host(table: Any) -> None:
    group = table["server_group_list"][2]
    del group["server_list"][1]
    group["server_count"] = 1


def _swap_hosts(table: Any) -> None:
    servers = table["server_group_list"][2]["server_list"]
    servers.reverse()


def _lose_device(table: Any) -> None:
    del server(table, 0)["device"][15]


def _lose_group(table: Any) -> None:
    del table["server_group_list"][1]


def _twice(table: Any) -> None:
    server(table, 0)["device"][1]["device_id"] = "0"


def _host_twice(table: Any) -> None:
    servers = table["server_group_list"][2]["server_list"]
    servers[1]["server_ip"] = servers[0]["server_ip"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set(0, 0, 3, "device_ip", ""), "host p0 (10.0.0.10), device 3: its address is blank."),
        (_set(0, 0, 3, "device_ip", None), "host p0 (10.0.0.10), device 3: its address is blank."),
        (_set(0, 0, 3, "device_ip", "127.0.0.1"), "device 3: its address is 127.0.0.1, a loopback"),
        (_set(0, 0, 3, "device_ip", "10.1.2"), "'10.1.2', which is no IPv4 address"),
        (_set(2, 1, 3, "rank_id", "3"), "host d1 (10.0.0.13), device 3: rank_id is 3, expected 19"),
        (_set(0, 0, 3, "rank_id", 3), "rank_id is 3, expected digits in quotes"),
        (
            _duplicate_ip,
            "device 5 of host p1 (10.0.0.11) and device 2 of host d1 (10.0.0.13) have the same "
            "address 10.1.3.102",
        ),
        (_lose_host, "group 2 (d0): host d1 (10.0.0.13) is missing"),
        (_swap_hosts, "in the order 10.0.0.13, 10.0.0.12, expected 10.0.0.12, 10.0.0.13"),
        (
            _lose_device,
            "host p0 (10.0.0.10) has devices 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14, expected 0,1,",
        ),
        (_lose_group, "it has 2 groups, expected 3: p0, p1, d0"),
        (_lose_group, "host p1 (10.0.0.11) is missing from it"),
        (_lose_group, "group 1: its group_id is '2', expected '1'"),
        (_twice, "host p0 (10.0.0.10): device 0 is listed 2 times"),
        (_host_twice, "group 2 (d0): host d0 (10.0.0.12) is listed 2 times"),
        (lambda t: server(t, 0).update(server_ip="127.0.1.1"), "127.0.1.1, a loopback address"),
        (lambda t: server(t, 0).update(server_ip="10.0.0.99"), "host 10.0.0.99 is not part of"),
        (lambda t: server(t, 0).update(server_id=" "), "host p0 (10.0.0.10) has a blank server_id"),
        (lambda t: server(t, 0).pop("device"), "host p0 (10.0.0.10) has no device list"),
        (lambda t: server(t, 0).update(device=[]), "host p0 (10.0.0.10) has an empty device list"),
        (
            lambda t: t["server_group_list"][0].update(server_count="1"),
            "group 0: server_count is '1', expected 1",
        ),
        (
            lambda t: t["server_group_list"][2].update(server_count=3),
            "group 2: server_count is 3, expected 2",
        ),
        (lambda t: t["server_group_list"][0].pop("server_list"), "group 0: it has no server_list"),
        (lambda t: t.pop("server_group_list"), "it has no server_group_list"),
        (
            lambda t: t.update(status="initializing"),
            "status is 'initializing', expected 'completed'",
        ),
        (lambda t: t.update(version=1), "version is 1, expected '1.0'"),
    ],
)
def test_a_broken_global_table_is_told(change: Callable[[Any], Any], expected: str):
    table = cluster()
    change(table)
    problems = check_global(table, "g.json", two_p_one_d())
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith("g.json: ") for problem in problems)


@pytest.mark.parametrize(
    "junk", [None, [], {}, "x", {"server_group_list": [None, {"server_list": 3}]}]
)
def test_junk_is_told_and_does_not_crash(junk: Any):
    assert check_global(junk, "f", two_p_one_d())
    assert check_local(junk, "f", P0)
    assert check_merged(junk, "f")
    assert check_generated(junk, "f")
    nested = {"version": "1.0", "status": "completed", "server_list": [junk], "server_count": "1"}
    assert check_local(nested, "f")


def test_local_tables_are_held_against_their_host():
    table = ranktable.local_table("10.0.0.10", [0, 1], device_ips(0))
    assert check_local(table, "l.json", Member("p0", "10.0.0.10", (0, 1))) == []
    assert check_local(table, "l.json", Member("p0", "10.0.0.10", (0, 2))) == [
        "l.json: host p0 (10.0.0.10) has devices 0,1, expected 0,2."
    ]
    assert check_local(table, "l.json", Member("p0", "10.0.0.20", (0, 1))) == [
        "l.json: host p0 (10.0.0.20) is missing.",
        "l.json: host 10.0.0.10 is not part of the plan.",
    ]


def test_a_merged_table_is_no_local_one_and_the_reverse():
    local = ranktable.local_table("10.0.0.10", [0], device_ips(0))
    merged = ranktable.merge_local([local, ranktable.local_table("10.0.0.11", [0], device_ips(1))])
    assert "f: it lists 2 hosts, expected 1." in check_local(merged, "f")
    assert check_merged(local, "f") == ["f: server_count is '1', expected 1."]


def test_generated_tables_rank_each_server_from_0():
    table = ranktable.generated_table(
        "10.0.0.10", api_server=True, prefill=[[0, 1], [2, 3]], decode=[], device_ips=device_ips(0)
    )
    assert check_generated(table, "f") == []
    server(table, 1, 1)["device"][0]["rank_id"] = "2"
    assert check_generated(table, "f") == [
        "f: group 1: host 10.0.0.10, device 2: rank_id is 2, expected 0."
    ]


def test_require_raises_all_problems_at_once():
    require([], "nothing")
    with pytest.raises(InputError) as caught:
        require(["one.", "two."], "mend them")
    assert caught.value.what == "one.\ntwo." and caught.value.todo == "mend them"
    assert caught.value.exit_code == 2
