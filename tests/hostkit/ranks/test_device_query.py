"""Against the executable stand-ins of the tools, on a real PATH."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest
from ranktable_cases import FACTS

from hostkit.base.errors import ActionError, InputError
from hostkit.ranks import device_query
from hostkit.ranks.device_query import Found, NoAnswer, Tools
from omnikit.prepare.ranktables import host_facts

pytestmark = pytest.mark.slow

FAKE = Path(__file__).parents[2] / "fake_npu"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tools:
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    return Tools(
        hccn_tool=str(FAKE / "hccn_tool"),
        hccn_conf=tmp_path / "hccn.conf",
        npu_smi=str(FAKE / "npu-smi"),
        ip=str(FAKE / "ip"),
        timeout_s=5.0,
        interval_s=0.01,
    )


def ask(tools: Tools, *devices: int, source: str = "auto") -> tuple[dict[int, Found], list[str]]:
    return device_query.device_addresses(devices, tools, source=source, host="p0")


def write_conf(tools: Tools, text: str = "") -> None:
    tools.hccn_conf.write_text(text or (FACTS / "hccn.conf").read_text())


def test_hccn_tool_is_asked_once_per_device(tools: Tools, tmp_path: Path):
    found, notes = ask(tools, 3, 0)
    assert list(found.items()) == [
        (3, Found("10.1.0.103", "hccn_tool")),
        (0, Found("10.1.0.100", "hccn_tool")),
    ]
    assert notes == []
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["hccn_tool -i 3 -ip -g", "hccn_tool -i 0 -ip -g"]


@pytest.mark.parametrize("state", ["empty", "none"])
def test_an_empty_answer_falls_back_to_the_file_with_a_note(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, state: str
):
    write_conf(tools)
    monkeypatch.setenv("FAKE_HCCN", state)
    monkeypatch.setenv("FAKE_HCCN_DEVICES", "1")
    found, notes = ask(tools, 0, 1)
    assert found[0].source == "hccn_tool"
    assert found[1] == Found("10.1.0.101", str(tools.hccn_conf))
    assert len(notes) == 1 and "host p0, device 1" in notes[0]


def test_a_missing_tool_falls_back_to_the_file_with_a_note(tools: Tools):
    write_conf(tools)
    absent = Tools(**{**tools.__dict__, "hccn_tool": "/nowhere/hccn_tool"})
    found, notes = ask(absent, 0, 15)
    assert found[15] == Found("10.1.0.115", str(tools.hccn_conf))
    assert len(notes) == 1 and "/nowhere/hccn_tool" in notes[0]
    with pytest.raises(InputError, match="/nowhere/hccn_tool"):
        ask(absent, 0, source="hccn_tool")


def test_a_device_that_nobody_knows_is_named_with_host_and_sources(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
):
    write_conf(tools, "address_0=10.1.0.100\n")
    monkeypatch.setenv("FAKE_HCCN", "empty")
    with pytest.raises(InputError) as caught:
        ask(tools, 0, 7)
    assert caught.value.where == "host p0"
    for part in ("Device 7", "hccn_tool", str(tools.hccn_conf)):
        assert part in caught.value.what


def test_a_missing_device_is_an_error_even_if_the_file_lists_it(tools: Tools):
    write_conf(tools, "address_16=10.1.0.116\n")
    with pytest.raises(ActionError, match="Device 16: hccn_tool says: Cmd execute failed!"):
        ask(tools, 16)


@pytest.mark.parametrize("state", ["denied", "busy"])
def test_a_tool_that_refuses_is_quoted(tools: Tools, monkeypatch: pytest.MonkeyPatch, state: str):
    write_conf(tools)
    monkeypatch.setenv("FAKE_HCCN", state)
    short = Tools(**{**tools.__dict__, "timeout_s": 1.0})
    with pytest.raises(ActionError) as caught:
        ask(short, 0)
    assert (FACTS / f"hccn_tool-ip.{state}.txt").read_text().strip() in caught.value.what
    assert "hccn.conf" in str(caught.value.todo)


def test_a_busy_tool_is_asked_again(tools: Tools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FAKE_HCCN", "busy-once")
    found, _ = ask(tools, 2)
    assert found[2].address == "10.1.0.102"
    assert (tmp_path / "calls").read_text().splitlines() == ["hccn_tool -i 2 -ip -g"] * 2


def test_a_hanging_tool_is_named_and_asked_no_more(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    write_conf(tools)
    monkeypatch.setenv("FAKE_HCCN", "hang")
    monkeypatch.setenv("FAKE_HCCN_DEVICES", "1 2")
    short = Tools(**{**tools.__dict__, "timeout_s": 1.0})
    with pytest.raises(NoAnswer) as caught:
        ask(short, 0, 1, 2)
    assert caught.value.where == "host p0"
    assert "Device 1: no answer within 1 s from:" in caught.value.what
    assert caught.value.what.endswith(f"{shlex.quote(str(FAKE / 'hccn_tool'))} -i 1 -ip -g.")
    assert "hccn_tool -i 2 -ip -g" not in (tmp_path / "calls").read_text()


def test_the_file_alone_is_read_when_asked_for(tools: Tools, tmp_path: Path):
    with pytest.raises(InputError, match="cannot read"):
        ask(tools, 0, source="hccn.conf")
    write_conf(tools)
    found, _ = ask(tools, 0, source="hccn.conf")
    assert found[0].source == str(tools.hccn_conf)
    assert not (tmp_path / "calls").exists()


def test_the_file_is_never_read_for_the_tool_alone(tools: Tools, monkeypatch: pytest.MonkeyPatch):
    write_conf(tools)
    monkeypatch.setenv("FAKE_HCCN", "empty")
    with pytest.raises(InputError, match=r"Device 0 has no address: .*hccn_tool know none"):
        ask(tools, 0, source="hccn_tool")


def test_an_outdated_file_is_noted(tools: Tools):
    write_conf(tools, "address_0=10.1.0.200\n")
    found, notes = ask(tools, 0)
    assert found[0].address == "10.1.0.100"
    assert "10.1.0.100" in notes[0] and "10.1.0.200" in notes[0]


def test_the_host_address_is_that_of_the_default_route(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object) -> str:
        raise AssertionError("the host name must not be asked")

    monkeypatch.setattr(socket, "gethostname", never)
    monkeypatch.setattr(socket, "gethostbyname", never)
    found, notes = device_query.host_address(tools)
    assert found.address == "10.0.0.11" and "enp23s0f3" in found.source
    assert notes == []


def test_other_addresses_of_the_interface_are_noted(tools: Tools, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_IP", "two-addresses")
    found, notes = device_query.host_address(tools)
    assert found.address == "10.0.0.11"
    assert len(notes) == 1 and "192.168.7.11" in notes[0] and "10.0.0.77" not in notes[0]


@pytest.mark.parametrize(
    ("state", "part"),
    [("no-route", "no default route"), ("no-address", "blank"), ("loopback", "loopback")],
)
def test_a_host_address_that_cannot_be_told_is_asked_for(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, state: str, part: str
):
    monkeypatch.setenv("FAKE_IP", state)
    with pytest.raises(InputError, match=part) as caught:
        device_query.host_address(tools)
    assert "--host-ip" in str(caught.value.todo)


@pytest.mark.parametrize("given", ["127.0.1.1", "", "node-7"])
def test_a_given_host_address_must_be_reachable(tools: Tools, given: str):
    with pytest.raises(InputError):
        device_query.host_address(tools, given)
    assert device_query.host_address(tools, "10.9.9.9") == (Found("10.9.9.9", "--host-ip"), [])


def test_gather_is_json_that_the_control_host_reads(tools: Tools, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.serving")
    data = json.loads(json.dumps(device_query.gather([0, 5], tools, source="auto", host="p0")))
    facts = host_facts(data)
    assert facts.addresses == ("127.0.0.1", "172.17.0.1", "10.0.0.11")
    assert facts.device_ips == {
        0: ("10.1.0.100", "hccn_tool"),
        5: ("10.1.0.105", "hccn_tool"),
    }
    assert facts.chips is not None and len(facts.chips) == 16
    assert facts.problems == ()
    assert data["processes"][0]["pid"] == 692318


def test_gather_reports_failures_and_goes_on(tools: Tools, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "dcmi-8005")
    monkeypatch.setenv("FAKE_HCCN", "denied")
    monkeypatch.setenv("FAKE_HCCN_DEVICES", "0")
    facts = host_facts(device_query.gather([0, 1], tools, source="auto", host="p0"))
    assert facts.chips is None
    assert facts.device_ips == {1: ("10.1.0.101", "hccn_tool")}
    assert len(facts.problems) == 2
    assert "-8005" in facts.problems[0] and "Device 0" in facts.problems[1]


def test_gather_does_not_wait_for_a_hanging_tool_sixteen_times(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_NPU_SMI", "hang")
    monkeypatch.setenv("FAKE_HCCN", "hang")
    short = Tools(**{**tools.__dict__, "timeout_s": 1.0})
    facts = host_facts(device_query.gather(range(16), short, source="auto", host="p0"))
    assert len(facts.problems) == 2
    assert all("no answer within 1 s" in problem for problem in facts.problems)
