"""The NPUs' own network ports, against the stand-in of hccn_tool."""

from __future__ import annotations

import shlex
import time

import pytest
from check_cases import FACTS, FAKE, ids, limits, look, npu_parameters, one, parameters, put, tools

from hostkit.checks import hccn as checks_hccn
from hostkit.checks.hccn import link, tls_switch

pytestmark = pytest.mark.slow

PEERS = [["d0", "10.0.0.12"]]


def hccn(folder, **more):
    return look(checks_hccn.look, npu_parameters(folder, **more))


def test_a_healthy_host(tmp_path):
    group = hccn(tmp_path)
    assert ids(group) == ["npu.address", "npu.link", "npu.tls"]
    assert {entry["state"] for entry in group.checks} == {"ok"}
    assert one(group, "npu.address")["found"] == "10.1.0.100 to 10.1.0.115"
    assert one(group, "npu.link")["found"] == "all 16 are UP"
    assert group.facts["device_ips"] == {str(n): f"10.1.0.{100 + n}" for n in range(16)}
    assert group.facts["tls"] == {str(n): "off" for n in range(16)}


def test_inside_of_a_super_pod_other_words_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    group = hccn(tmp_path, devices=[3], ranktable=tools(device_address="vnic"))
    assert group.facts["device_ips"] == {"3": "192.168.0.103"}
    assert "hccn_tool -i 3 -vnic -g" in (tmp_path / "calls").read_text()
    assert {entry["state"] for entry in group.checks} == {"ok"}
    twice = hccn(tmp_path, devices=[3, 300], ranktable=tools(device_address="vnic"))
    assert one(twice, "npu.address")["state"] == "failed"
    assert "ranktable.device_address: ip" in one(twice, "npu.address")["todo"]


def test_nothing_without_npus_or_devices(tmp_path):
    assert look(checks_hccn.look, parameters(tmp_path)).checks == []
    assert hccn(tmp_path, devices=[]).checks == []  # a host with the proxy alone


def test_only_planned_devices_are_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    assert set(hccn(tmp_path, devices=[3, 5]).facts["tls"]) == {"3", "5"}
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        *("hccn_tool -i 3 -ip -g", "hccn_tool -i 5 -ip -g"),
        *("hccn_tool -i 3 -link -g", "hccn_tool -i 5 -link -g"),
        *("hccn_tool -i 3 -tls -g", "hccn_tool -i 5 -tls -g"),
    ]


@pytest.mark.parametrize(("more", "state"), [({}, "failed"), ({"disaggregated": False}, "warning")])
def test_a_device_without_an_address(tmp_path, monkeypatch, more, state):
    monkeypatch.setenv("FAKE_HCCN", "none")
    monkeypatch.setenv("FAKE_HCCN_DEVICES", "4")
    group = hccn(tmp_path, **more)
    entry = one(group, "npu.address")
    assert entry["state"] == state
    assert "Device 4 has no address" in entry["found"]
    assert "4" not in group.facts["device_ips"] and len(group.facts["device_ips"]) == 15


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("1=10.1.0.100", "device 1 has the address 10.1.0.100 of another device"),
        ("1=127.0.0.1", "the address of device 1 is 127.0.0.1, a loopback address"),
    ],
)
def test_addresses_that_cannot_serve(tmp_path, monkeypatch, changed, found):
    monkeypatch.setenv("FAKE_HCCN_CHANGED", changed)
    entry = one(hccn(tmp_path), "npu.address")
    assert entry["state"] == "failed"
    assert entry["found"].startswith(found)


@pytest.mark.parametrize(("peers", "state"), [(PEERS, "failed"), ([], "warning")])
def test_a_link_that_is_down(tmp_path, monkeypatch, peers, state):
    monkeypatch.setenv("FAKE_LINK", "down")
    monkeypatch.setenv("FAKE_LINK_DEVICES", "2 9")
    entry = one(hccn(tmp_path, peers=peers), "npu.link")
    assert (entry["state"], entry["found"]) == (state, "not UP: device 2, 9")
    assert "hccn_tool -i 2 -link_stat -g" in entry["todo"]


def test_a_tls_switch_that_differs(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TLS", "on")
    monkeypatch.setenv("FAKE_TLS_DEVICES", "6")
    group = hccn(tmp_path, devices=[5, 6, 7])
    entry = one(group, "npu.tls")
    assert (entry["state"], entry["found"]) == ("failed", "off on device 5,7; on on device 6")
    assert group.facts["tls"] == {"5": "off", "6": "on", "7": "off"}
    assert "-tls -s enable 0" in entry["todo"]


def test_devices_without_certificates_have_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TLS", "none")
    assert hccn(tmp_path, devices=[0]).facts["tls"] == {"0": "off"}


def test_a_busy_tool_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_LINK", "busy-once")
    assert one(hccn(tmp_path, devices=[0]), "npu.link")["state"] == "ok"
    assert (tmp_path / "calls").read_text().splitlines().count("hccn_tool -i 0 -link -g") == 2


def test_an_answer_that_says_nothing_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LINK", "none")
    entry = one(hccn(tmp_path, devices=[0]), "npu.link")
    assert (entry["state"], entry["found"]) == ("unknown", "device 0: Cmd execute failed!")


@pytest.mark.parametrize(
    ("variable", "name", "words", "last"),
    [
        ("FAKE_HCCN", "npu.address", "-ip", ["npu.address"]),
        ("FAKE_LINK", "npu.link", "-link", ["npu.address", "npu.link"]),
    ],
)
def test_a_tool_that_hangs_is_asked_once(tmp_path, monkeypatch, variable, name, words, last):
    monkeypatch.setenv(variable, "hang")
    began = time.monotonic()
    group = hccn(tmp_path, checks=limits(timeout_s=0.5))
    assert time.monotonic() - began < 20
    entry = one(group, name)
    assert entry["state"] == "failed"
    tool = shlex.quote(f"{FAKE}/hccn_tool")
    assert f"no answer within 0.5 s from: {tool} -i 0 {words} -g" in entry["found"]
    assert ids(group) == last


def test_a_host_without_the_tool_falls_back_to_its_file(tmp_path):
    given = npu_parameters(tmp_path, ranktable=tools(hccn_tool="hccn_tool-not-there"))
    put(tmp_path / "root", "/etc/hccn.conf", (FACTS / "hccn.conf").read_text())
    group = look(checks_hccn.look, given)
    assert ids(group) == ["npu.hccn_tool", "npu.address"]
    assert one(group, "npu.hccn_tool")["state"] == "failed"
    assert one(group, "npu.address")["found"] == "10.1.0.100 to 10.1.0.115"


def test_with_the_file_as_the_source_the_tool_is_not_missed(tmp_path):
    more = tools(hccn_tool="hccn_tool-not-there", source="hccn.conf")
    given = npu_parameters(tmp_path, ranktable=more)
    put(tmp_path / "root", "/etc/hccn.conf", (FACTS / "hccn.conf").read_text())
    group = look(checks_hccn.look, given)
    assert [(e["id"], e["state"]) for e in group.checks] == [("npu.address", "ok")]


def test_words_of_the_tool():
    assert link("Current link status : down") == "DOWN"
    assert link("Cmd execute failed!") is None
    assert tls_switch("dev_id:0, tls switch[1](0:disable, 1:enable)") == "on"
    assert tls_switch("Cmd execute failed!") is None
