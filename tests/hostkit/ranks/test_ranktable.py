from __future__ import annotations

import copy
import json

import pytest

from hostkit.base.errors import InputError
from hostkit.ranks import ranktable

IPS = {0: "10.1.0.100", 1: "10.1.0.101", 4: "10.1.0.104"}


def test_a_local_table_has_exactly_the_engines_keys_in_order():
    assert (
        ranktable.dumps(ranktable.local_table("10.0.0.11", [4, 1], IPS))
        == """{
    "version": "1.0",
    "status": "completed",
    "group_id": "0",
    "server_count": "1",
    "server_list": [
        {
            "server_id": "10.0.0.11",
            "server_ip": "10.0.0.11",
            "device": [
                {
                    "device_id": "4",
                    "device_ip": "10.1.0.104",
                    "rank_id": "0"
                },
                {
                    "device_id": "1",
                    "device_ip": "10.1.0.101",
                    "rank_id": "1"
                }
            ]
        }
    ]
}
"""
    )


def test_a_host_table_is_the_same_without_devices():
    with_devices = ranktable.local_table("10.0.0.11", [0], IPS)
    del with_devices["server_list"][0]["device"]
    assert ranktable.host_table("10.0.0.11") == with_devices


def test_file_names():
    assert ranktable.local_name("10.0.0.11", [0, 1, 10]) == "local_ranktable_10.0.0.11_0110.json"
    assert ranktable.host_name("10.0.0.11") == "local_ranktable_10.0.0.11_host.json"
    assert ranktable.generated_name("10.0.0.11") == "global_ranktable_10.0.0.11.json"
    assert ranktable.MERGED_LOCAL == "local_ranktable_merge.json"
    assert ranktable.MERGED_GLOBAL == "global_ranktable_merge.json"


def test_merging_renumbers_ranks_through_all_hosts_and_counts_with_a_number():
    first = ranktable.local_table("10.0.0.11", [0, 1], IPS)
    second = ranktable.local_table("10.0.0.12", [4, 0], IPS)
    before = copy.deepcopy([first, second])
    merged = ranktable.merge_local([first, second])
    assert merged["server_count"] == 2
    assert [server["server_ip"] for server in merged["server_list"]] == ["10.0.0.11", "10.0.0.12"]
    ranks = [(d["device_id"], d["rank_id"]) for s in merged["server_list"] for d in s["device"]]
    assert ranks == [("0", "0"), ("1", "1"), ("4", "2"), ("0", "3")]
    assert [first, second] == before


def test_the_global_table_has_a_group_per_instance_with_ranks_as_they_are():
    local = ranktable.local_table("10.0.0.11", [0, 1], IPS)
    merged = ranktable.merge_local(
        [ranktable.local_table(f"10.0.0.1{n}", [4], IPS) for n in (2, 3)]
    )
    cluster = ranktable.global_table([local], [merged])
    assert list(cluster) == ["version", "status", "server_group_list"]
    groups = cluster["server_group_list"]
    assert [list(group) for group in groups] == [["group_id", "server_count", "server_list"]] * 2
    assert [(group["group_id"], group["server_count"]) for group in groups] == [("0", 1), ("1", 2)]
    assert groups[0]["server_list"] == local["server_list"]
    assert groups[1]["server_list"] == merged["server_list"]
    assert groups[1]["server_list"][1]["device"][0]["rank_id"] == "1"


def test_mode_gen_groups_are_roles_with_counts_in_quotes():
    table = ranktable.generated_table(
        "10.0.0.11", api_server=True, prefill=[[0], [1]], decode=[[4]], device_ips=IPS
    )
    groups = table["server_group_list"]
    assert [(g["group_id"], g["server_count"]) for g in groups] == [
        ("0", "1"),
        ("1", "2"),
        ("2", "1"),
    ]
    assert groups[0]["server_list"] == [{"server_id": "10.0.0.11", "server_ip": "10.0.0.11"}]
    assert [s["device"][0]["rank_id"] for g in groups[1:] for s in g["server_list"]] == ["0"] * 3
    only = ranktable.generated_table(
        "10.0.0.11", api_server=False, prefill=[], decode=[[4]], device_ips=IPS
    )
    assert [group["group_id"] for group in only["server_group_list"]] == ["2"]


def test_merging_generated_tables_joins_group_by_group():
    a = ranktable.generated_table(
        "10.0.0.11", api_server=True, prefill=[[0]], decode=[], device_ips=IPS
    )
    b = ranktable.generated_table(
        "10.0.0.12", api_server=False, prefill=[[1]], decode=[[4]], device_ips=IPS
    )
    merged = ranktable.merge_generated([a, b])
    hosts = {
        group["group_id"]: [server["server_ip"] for server in group["server_list"]]
        for group in merged["server_group_list"]
    }
    assert hosts == {"0": ["10.0.0.11"], "1": ["10.0.0.11", "10.0.0.12"], "2": ["10.0.0.12"]}
    assert [group["server_count"] for group in merged["server_group_list"]] == ["1", "2", "1"]


def test_an_unknown_device_is_named_with_its_host():
    with pytest.raises(InputError) as caught:
        ranktable.local_table("10.0.0.11", [0, 7], IPS)
    assert caught.value.where == "host 10.0.0.11"
    assert "device 7" in caught.value.what and "0, 1, 4" in caught.value.what
    assert "hccn_tool -i 7 -ip -g" in str(caught.value.todo)


def test_two_device_lists_with_one_file_name_are_refused():
    ips = {device: f"10.1.0.{100 + device}" for device in range(16)}
    tables: dict[str, ranktable.Table] = {}
    for devices in ([1, 12], [1, 12]):  # the same table again is no clash
        ranktable.add_local(tables, ranktable.local_table("10.0.0.11", devices, ips), devices)
    with pytest.raises(InputError, match="devices 1,12 and of devices 11,2") as caught:
        ranktable.add_local(tables, ranktable.local_table("10.0.0.11", [11, 2], ips), [11, 2])
    assert "local_ranktable_10.0.0.11_112.json" in caught.value.what


def test_text_is_json_and_ends_in_a_newline():
    table = ranktable.host_table("10.0.0.11")
    assert json.loads(ranktable.dumps(table)) == table
    assert ranktable.dumps(table).endswith("}\n")
