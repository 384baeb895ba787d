from __future__ import annotations

import pytest
from ranktable_cases import fact

from hostkit.base.errors import ActionError, InputError
from hostkit.ranks import device_facts
from hostkit.ranks.device_facts import HccnAnswer, InterfaceAddress, NpuProcess, Route


def test_a3_has_eight_cards_of_two_chips():
    info = device_facts.npu_smi_info(fact("npu-smi-info.a3.healthy.txt"))
    assert info.version == "25.2.1"
    assert [chip.phy_id for chip in info.chips] == list(range(16))
    assert [(chip.card, chip.chip) for chip in info.chips[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {chip.health for chip in info.chips} == {"OK"}
    assert {chip.hbm_total_mb for chip in info.chips} == {65536}
    assert {chip.name for chip in info.chips} == {"Ascend910"}
    assert info.processes == ()


def test_processes_belong_to_chips_and_may_have_no_name():
    info = device_facts.npu_smi_info(fact("npu-smi-info.a3.serving.txt"))
    assert info.processes[1] == NpuProcess(0, 1, 692319, "VLLMWorker_TP", 58391)
    assert info.processes[2] == NpuProcess(3, 0, 692402, "", 115)
    assert info.chips[0].hbm_used_mb == 61825
    assert len(info.chips) == 16


def test_a_missing_card_is_missing():
    chips = device_facts.npu_smi_info(fact("npu-smi-info.a3.card-missing.txt")).chips
    assert set(range(16)) - {chip.phy_id for chip in chips} == {10, 11}


def test_health_is_told_per_chip():
    chips = device_facts.npu_smi_info(fact("npu-smi-info.a3.chip-warning.txt")).chips
    assert [(chip.phy_id, chip.health) for chip in chips if chip.health != "OK"] == [(7, "Warning")]


def test_cards_of_one_chip_have_no_physical_id_column():
    chips = device_facts.npu_smi_info(fact("npu-smi-info.910b.txt")).chips
    assert [(chip.phy_id, chip.card, chip.chip, chip.name) for chip in chips] == [
        (0, 0, 0, "910B3"),
        (1, 1, 0, "910B3"),
    ]


def test_npu_smi_that_fails_is_quoted():
    with pytest.raises(ActionError, match="-8005"):
        device_facts.npu_smi_info(fact("npu-smi-info.dcmi-8005.txt"))
    with pytest.raises(ActionError, match="it says: nothing"):
        device_facts.npu_smi_info("")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("empty", "empty"),
        ("none", "empty"),
        ("busy", "busy"),
        ("denied", "error"),
        ("failed", "error"),
    ],
)
@pytest.mark.parametrize("on_stderr", [False, True])
def test_hccn_tool_answers(name: str, kind: str, on_stderr: bool):
    text = fact(f"hccn_tool-ip.{name}.txt")
    answer = device_facts.hccn_answer(*(("", text) if on_stderr else (text, "")))
    assert answer == HccnAnswer(kind, text.strip())


def test_hccn_tool_address():
    healthy = fact("hccn_tool-ip.healthy.txt")
    assert device_facts.hccn_answer(healthy) == HccnAnswer("address", "10.1.0.100")
    assert device_facts.hccn_answer("ipaddr:0.0.0.0\nnetmask:0.0.0.0\n").kind == "empty"
    assert device_facts.hccn_answer("ipaddr:\n").kind == "empty"
    assert device_facts.hccn_answer("", "", 1) == HccnAnswer("error", "exit status 1, no words")


def test_hccn_conf_addresses_by_device():
    found = device_facts.hccn_conf(fact("hccn.conf"), "hccn.conf")
    assert found == {device: f"10.1.0.{100 + device}" for device in range(16)}
    assert device_facts.hccn_conf("# address_1=1.2.3.4\n address_2 = 1.2.3.5 \n", "f") == {
        2: "1.2.3.5"
    }


def test_hccn_conf_that_contradicts_itself_is_refused_with_its_line():
    with pytest.raises(InputError) as caught:
        device_facts.hccn_conf("address_3=10.1.0.1\naddress_3=10.1.0.2\n", "/etc/hccn.conf")
    assert caught.value.where == "/etc/hccn.conf:2"
    assert "10.1.0.1" in caught.value.what and "10.1.0.2" in caught.value.what


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "blank"),
        (" ", "blank"),
        (None, "blank"),
        ("127.0.1.1", "loopback"),
        ("10.1.2", "no IPv4"),
        ("10.1.2.3 ", "no IPv4"),
        ("host-1", "no IPv4"),
        ("0.0.0.0", "no single machine"),
        ("224.0.0.1", "no single machine"),
        ("255.255.255.255", "no single machine"),
    ],
)
def test_unfit_addresses(text: object, part: str):
    assert part in str(device_facts.address_problem(text))


def test_fit_address():
    assert device_facts.address_problem("10.1.2.3") is None


def test_the_default_route_with_the_lowest_metric_counts():
    one = device_facts.default_route(fact("ip-route-default.txt"))
    two = device_facts.default_route(fact("ip-route-default.two.txt"))
    assert one == two == Route("enp23s0f3", None)
    assert device_facts.default_route("") is None
    assert device_facts.default_route("default dev lo src 10.0.0.1") == Route("lo", "10.0.0.1")


def test_the_route_to_a_peer_names_interface_and_source():
    assert device_facts.route_to(fact("ip-route-get.txt")) == Route("enp23s0f3", "10.0.0.1")
    assert device_facts.route_to("RTNETLINK answers: Network is unreachable") is None


def test_interface_addresses():
    found = device_facts.interface_addresses(fact("ip-addr.all.txt"))
    assert [(a.interface, a.address) for a in found] == [
        ("lo", "127.0.0.1"),
        ("docker0", "172.17.0.1"),
        ("enp23s0f3", "10.0.0.11"),
    ]
    two = device_facts.interface_addresses(fact("ip-addr.dev.two.txt"))
    assert two[1] == InterfaceAddress("enp23s0f3", "10.0.0.77", True)
