from __future__ import annotations

from ranktable_cases import two_p_one_d, two_p_one_d_ips

from hostkit.ranks import read
from hostkit.ranks.read import Device, Report, Server
from omnikit.prepare import ranktables


def test_servers_of_a_global_and_of_a_local_table():
    tables = ranktables.planned(two_p_one_d(), two_p_one_d_ips())
    every = read.all_servers(tables.cluster)
    assert [server.address for server in every] == [f"10.0.0.1{n}" for n in range(4)]
    assert every[0] == read.all_servers(tables.local[0][0])[0]
    assert every[3].devices is not None
    assert every[3].devices[0] == Device("0", "10.1.3.100", "16")
    assert read.all_servers(None) == []


def test_a_server_without_devices_is_not_one_with_none():
    report = Report("f")
    holder = {"server_count": 1, "server_list": [{"server_id": "a", "server_ip": "10.0.0.1"}]}
    assert read.servers(holder, report) == [Server("10.0.0.1", None)]
    assert report.problems == []


def test_hosts_are_named_as_people_know_them():
    report = Report("f", {"10.0.0.1": "p0", "10.0.0.2": "10.0.0.2"})
    assert report.host("10.0.0.1") == "host p0 (10.0.0.1)"
    assert report.host("10.0.0.2") == report.host("10.0.0.2") == "host 10.0.0.2"
    report.say("it is wrong", "group 1")
    assert report.problems == ["f: group 1: it is wrong."]
