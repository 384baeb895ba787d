from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from ranktable_cases import two_p_one_d, two_p_one_d_ips

from hostkit.base.errors import ActionError, InputError
from hostkit.ranks import ranktable
from hostkit.ranks.ranktable import Device, Report, Server
from omnikit.prepare import ranktables

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


def test_files_are_created_rewritten_or_left_alone(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    assert ranktable.save_all(folder, {"a": "1", "b": "2"}, dry_run=False) == {
        "a": "created",
        "b": "created",
    }
    before = (folder / "a").stat()
    assert ranktable.save_all(folder, {"a": "1", "b": "3"}, dry_run=False) == {
        "a": "unchanged",
        "b": "rewritten",
    }
    after = (folder / "a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (folder / "b").read_text() == "3"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path: Path):
    ranktable.save_all(tmp_path, {"a": "old" * 1000}, dry_run=False)
    with (tmp_path / "a").open() as reader:
        ranktable.save_all(tmp_path, {"a": "new"}, dry_run=False)
        assert reader.read() == "old" * 1000
    assert (tmp_path / "a").read_text() == "new"


def test_a_failure_half_way_leaves_the_old_files_and_no_rest(tmp_path: Path):
    ranktable.save_all(tmp_path, {"a": "old"}, dry_run=False)
    with pytest.raises(ActionError) as caught:
        ranktable.save_all(tmp_path, {"a": "new", "no/folder": "x"}, dry_run=False)
    assert caught.value.where == str(tmp_path)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_dry_run_writes_nothing(tmp_path: Path):
    folder = tmp_path / "new"
    assert ranktable.save_all(folder, {"a": "1"}, dry_run=True) == {"a": "created"}
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_wrong_input(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        ranktable.save_all(tmp_path / "file" / "x", {"a": "1"}, dry_run=False)
    assert "--save-dir" in str(caught.value.todo)


def test_files_that_are_missing_or_no_json_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="No such file") as caught:
        ranktable.load(tmp_path / "x.json")
    assert caught.value.where == str(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        ranktable.load(tmp_path / "y.json")


def test_servers_of_a_global_and_of_a_local_table():
    tables = ranktables.planned(two_p_one_d(), two_p_one_d_ips())
    every = ranktable.all_servers(tables.cluster)
    assert [server.address for server in every] == [f"10.0.0.1{n}" for n in range(4)]
    assert every[0] == ranktable.all_servers(tables.local[0][0])[0]
    assert every[3].devices is not None
    assert every[3].devices[0] == Device("0", "10.1.3.100", "16")
    assert ranktable.all_servers(None) == []


def test_a_server_without_devices_is_not_one_with_none():
    report = Report("f")
    holder = {"server_count": 1, "server_list": [{"server_id": "a", "server_ip": "10.0.0.1"}]}
    assert ranktable.servers(holder, report) == [Server("10.0.0.1", None)]
    assert report.problems == []


def test_hosts_are_named_as_people_know_them():
    report = Report("f", {"10.0.0.1": "p0", "10.0.0.2": "10.0.0.2"})
    assert report.host("10.0.0.1") == "host p0 (10.0.0.1)"
    assert report.host("10.0.0.2") == report.host("10.0.0.2") == "host 10.0.0.2"
    report.say("it is wrong", "group 1")
    assert report.problems == ["f: group 1: it is wrong."]
