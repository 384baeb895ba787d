"""NPUs of a host, against the stand-in of npu-smi on a real PATH and a tree of an A3's files."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time

import pytest
from check_cases import (
    FACTS,
    FAKE,
    ids,
    limits,
    look,
    npu_parameters,
    one,
    parameters,
    put,
    recorded,
    states,
    tools,
)

from hostkit.checks import devices as checks_devices


def devices(folder, **more):
    return look(checks_devices.look, npu_parameters(folder, **more))


def test_a_healthy_host(tmp_path):
    group = devices(tmp_path)
    assert ids(group) == [
        "npu.files",
        "npu.install",
        "npu.driver_files",
        "npu.cann",
        "npu.smi",
        "npu.driver",
        "npu.devices",
        "npu.health",
        "npu.memory",
        "npu.processes",
    ]
    assert set(states(group).values()) == {"ok"}
    assert one(group, "npu.smi")["found"] == "npu-smi 25.2.1 lists 16 chips"
    assert one(group, "npu.devices")["needed"] == "the 16 planned devices (0 to 15)"
    assert one(group, "npu.memory")["found"] == "65536 MiB each, at least 62405 MiB free"
    assert group.facts == {
        "driver_version": "25.2.1",
        "firmware_version": "7.7.0.6.236",
        "cann_version": "8.2.RC1",
    }


def test_an_engine_without_npus_is_asked_nothing(tmp_path):
    group = look(checks_devices.look, parameters(tmp_path))
    assert (group.checks, group.facts) == ([], {})


def test_a_missing_card_fails_where_it_is_planned(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.card-missing")
    entry = one(devices(tmp_path), "npu.devices")
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"] == (
        "14 chips on 7 cards; not there: device 10, 11; npu-smi does not list card 5"
    )
    assert "hosts.p0.devices" in entry["todo"]


def test_a_missing_card_that_nobody_planned_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.card-missing")
    entry = one(devices(tmp_path, devices=[0, 1]), "npu.devices")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert entry["found"] == "14 chips on 7 cards; npu-smi does not list card 5"


@pytest.mark.parametrize(
    ("planned", "state", "found"),
    [
        (list(range(16)), "failed", "device 7 (card 3, chip 1): Warning"),
        ([0, 1], "warning", "device 7 (card 3, chip 1): Warning, not planned"),
    ],
)
def test_a_chip_in_warning(tmp_path, monkeypatch, planned, state, found):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.chip-warning")
    entry = one(devices(tmp_path, devices=planned), "npu.health")
    assert (entry["state"], entry["found"]) == (state, found)
    assert "npu-smi info -t health -i 3 -c 1" in entry["todo"]


def test_memory_and_programs_of_strangers(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.serving")
    group = devices(tmp_path)
    memory, programs = one(group, "npu.memory"), one(group, "npu.processes")
    assert (memory["state"], memory["required"]) == ("failed", True)
    assert memory["found"].split("; ") == [
        "device 0 (card 0, chip 0): 61825 of 65536 MiB are taken",
        "device 1 (card 0, chip 1): 61744 of 65536 MiB are taken",
        "device 6 (card 3, chip 0): 59499 of 65536 MiB are taken",
    ]
    assert memory["needed"] == "at most 8192 MiB taken (checks.hbm_used_mib)"
    assert (programs["state"], programs["required"]) == ("warning", False)
    assert programs["found"] == (
        "pid 692318 (VLLMWorker_TP) on device 0, 58472 MiB;"
        " pid 692319 (VLLMWorker_TP) on device 1, 58391 MiB;"
        " pid 692402 (no name) on device 6, 115 MiB; pid 692410 (python3) on device 6, 56131 MiB"
    )
    assert programs["todo"].startswith("ps -o pid,user,etime,args -p 692318,692319,692402,692410;")


def test_devices_that_are_not_planned_may_be_used_by_others(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.serving")
    found = states(devices(tmp_path, devices=[2, 3]))
    assert (found["npu.memory"], found["npu.processes"]) == ("ok", "ok")


def test_our_own_servers_are_no_strangers(tmp_path, monkeypatch):
    """A stand-in of npu-smi that names the pid of a process that has a record."""
    server = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        text = (FACTS / "npu-smi-info.a3.serving.txt").read_text()
        said = put(tmp_path, "/said.txt", text.replace("692318", f"{server.pid:<6}"))
        program = put(tmp_path, "/npu-smi", f"#!/bin/sh\ncat {said}\n")
        program.chmod(0o755)
        recorded(tmp_path, server.pid)
        group = devices(tmp_path, devices=[0], ranktable=tools(npu_smi=str(program)))
        assert one(group, "npu.memory")["state"] == "ok"
        entry = one(group, "npu.processes")
        assert (entry["state"], entry["found"]) == ("ok", "1 of the toolkit's own")
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"hbm_mib": 65536}, "ok"),
        ({"hbm_mib": 65537}, "failed"),
        ({"hbm_used_mib": 3000}, "failed"),
    ],
)
def test_memory_against_the_settings(tmp_path, more, state):
    entry = one(devices(tmp_path, checks=limits(**more)), "npu.memory")
    assert entry["state"] == state


def test_no_limit_of_used_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "a3.serving")
    entry = one(devices(tmp_path, checks=limits(hbm_used_mib=0)), "npu.memory")
    assert (entry["state"], entry["needed"]) == ("ok", "")


def test_a_hanging_npu_smi_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "hang")
    began = time.monotonic()
    group = devices(tmp_path, checks=limits(timeout_s=0.5))
    assert time.monotonic() - began < 20
    entry = one(group, "npu.smi")
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"] == f"no answer within 0.5 s from: {shlex.quote(f'{FAKE}/npu-smi')} info"
    assert "dmesg" in entry["todo"]
    assert states(group)["npu.files"] == "ok"


def test_a_driver_that_does_not_answer_npu_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "dcmi-8005")
    entry = one(devices(tmp_path), "npu.smi")
    assert entry["state"] == "failed"
    assert "dcmi module initialize failed. ret is -8005" in entry["found"]


def test_a_host_without_npu_smi(tmp_path):
    group = devices(tmp_path, ranktable=tools(npu_smi="npu-smi-that-is-not-there"))
    entry = one(group, "npu.smi")
    assert entry["found"] == "there is no npu-smi-that-is-not-there on PATH"
    assert entry["todo"].startswith("install the NPU driver")
    assert "npu.health" not in ids(group)


def test_an_npu_smi_that_is_not_on_path_is_found_for_the_setting(tmp_path, monkeypatch):
    given = npu_parameters(tmp_path, ranktable=tools(npu_smi="npu-smi"))
    shutil.copy(FAKE / "npu-smi", put(tmp_path / "root", "/usr/local/sbin/npu-smi", ""))
    entry = one(look(checks_devices.look, given), "npu.smi")
    assert entry["todo"] == "set ranktable.npu_smi: /usr/local/sbin/npu-smi"
    monkeypatch.setenv("PATH", f"{FAKE}{os.pathsep}{os.environ['PATH']}")
    assert one(look(checks_devices.look, given), "npu.smi")["state"] == "ok"


def test_missing_device_files(tmp_path):
    given = npu_parameters(tmp_path)
    for name in ("davinci3", "hisi_hdc"):
        (tmp_path / "root" / "dev" / name).unlink()
    entry = one(look(checks_devices.look, given), "npu.files")
    assert (entry["state"], entry["found"]) == ("failed", "missing: /dev/davinci3, /dev/hisi_hdc")


def test_an_older_card_without_physical_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "910b")
    group = devices(tmp_path, devices=[0, 1])
    assert one(group, "npu.devices")["found"] == "2 chips on 2 cards"
    assert one(group, "npu.driver")["found"].startswith("24.1.rc3 runs, ")
