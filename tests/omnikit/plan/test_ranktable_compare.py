from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from ranktable_cases import fact, two_p_one_d, two_p_one_d_facts, two_p_one_d_ips

from hostkit.ranks.device_facts import npu_smi_info
from omnikit.prepare import ranktables
from omnikit.prepare.ranktables import HostFacts, compare


@pytest.fixture
def table() -> Any:
    return copy.deepcopy(ranktables.planned(two_p_one_d(), two_p_one_d_ips()).cluster)


def differences(table: Any, **changed: Any) -> list[str]:
    """What is found when one host (d1) reports something else."""
    live = two_p_one_d_facts()
    live["d1"] = replace(live["d1"], **changed)
    return compare(two_p_one_d(), table, "g.json", live)


def test_when_all_agree_there_is_nothing_to_say(table: Any):
    assert compare(two_p_one_d(), table, "g.json", two_p_one_d_facts()) == []


def test_a_changed_device_address_is_named(table: Any):
    ips = {**two_p_one_d_facts()["d1"].device_ips, 5: ("10.1.9.9", "hccn_tool")}
    assert differences(table, device_ips=ips) == [
        "host d1 (10.0.0.13): device 5 has the address 10.1.9.9 now (says hccn_tool), "
        "g.json says 10.1.3.105."
    ]


def test_a_missing_card_is_named_by_both_devices(table: Any):
    chips = npu_smi_info(fact("npu-smi-info.a3.card-missing.txt")).chips
    found = differences(table, chips=chips)
    assert len(found) == 2
    for problem, device, chip in zip(found, (10, 11), (0, 1)):
        assert problem.startswith(
            f"host d1 (10.0.0.13): device {device} (card 5, chip {chip}) is planned, but npu-smi "
            "does not list it"
        )


def test_an_unhealthy_chip_is_named(table: Any):
    chips = npu_smi_info(fact("npu-smi-info.a3.chip-warning.txt")).chips
    assert differences(table, chips=chips) == [
        "host d1 (10.0.0.13): the health of device 7 (card 3, chip 1) is Warning, expected OK."
    ]


def test_an_address_that_the_host_does_not_have_is_named(table: Any):
    assert differences(table, addresses=("127.0.0.1", "10.0.0.99")) == [
        "host d1 (10.0.0.13): the planned address is not one of its own: 10.0.0.99."
    ]


def test_a_silent_host_and_failed_tools_are_told(table: Any):
    live = two_p_one_d_facts()
    del live["p1"]
    live["d0"] = HostFacts(("10.0.0.12",), {}, None, ("no answer within 10 s from: npu-smi info",))
    assert compare(two_p_one_d(), table, "g.json", live) == [
        "host p1 (10.0.0.11): it reported nothing.",
        "host d0 (10.0.0.12): no answer within 10 s from: npu-smi info",
    ]


def test_a_device_that_reports_no_address_is_named(table: Any):
    ips = dict(two_p_one_d_facts()["d1"].device_ips)
    del ips[15]
    assert differences(table, device_ips=ips) == [
        "host d1 (10.0.0.13): device 15 reported no address."
    ]


def test_a_table_that_is_not_of_this_plan_is_told_with_the_rest(table: Any):
    del table["server_group_list"][2]["server_list"][1]
    table["server_group_list"][2]["server_count"] = 1
    found = differences(table)
    assert found == ["g.json: group 2 (d0): host d1 (10.0.0.13) is missing."]
