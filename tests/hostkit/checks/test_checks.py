"""All checks of a host together, as the control host calls them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from check_cases import FACTS, FAKE, ids, limits, look, npu_parameters, one, parameters, put, tools
from host_cases import pythons
from port_rooms import free_port

from hostkit.agent import jobs
from hostkit.checks import checks
from hostkit.checks import checks as checks_others
from omnikit.fleet import bundle

pytestmark = pytest.mark.slow

KEYS = {"id", "title", "state", "required", "found", "needed", "todo"}


def by_id(result):
    return {entry["id"]: entry for entry in result["checks"]}


def test_the_job_is_this_function():
    assert jobs.find("check") is checks.check


def test_a_healthy_npu_host_and_its_facts(tmp_path):
    given = npu_parameters(
        tmp_path,
        address="127.0.0.1",
        ports=[["127.0.0.1", free_port(), "the API of p0.0"]],
        checks=limits(kernel={"net.core.somaxconn": 1}),
        engine_apart=True,  # whichever Python runs the tests
    )
    result = checks.check(given)
    assert json.loads(json.dumps(result)) == result
    assert all(set(entry) == KEYS for entry in result["checks"])
    # The tree has no /dev/shm and no /proc/sys; the rest is as it should be.
    bad = [entry["id"] for entry in result["checks"] if entry["state"] == "failed"]
    assert bad == ["system.shm"]
    names = [entry["id"] for entry in result["checks"]]
    assert len(names) == len(set(names))
    assert {
        *("clock", "os", "kernel", "arch", "python", "hostname", "resolves_to", "driver_version"),
        *("firmware_version", "cann_version", "device_ips", "tls"),
    } == set(result["facts"])
    assert result["changed"] is False
    for entry in result["checks"]:
        assert entry["state"] in ("ok", "unknown") or entry["todo"]
        assert not (entry["state"] == "failed" and not entry["required"])


def test_a_host_without_npus_has_no_checks_of_them(tmp_path):
    result = checks.check(parameters(tmp_path, ranktable=tools(ip="ip")))
    groups = {entry["id"].partition(".")[0] for entry in result["checks"]}
    assert groups == {"system", "names", "network", "disk"}
    assert "tls" not in result["facts"] and "engine" not in result["facts"]


def test_one_hanging_tool_costs_its_own_checks_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NPU_SMI", "hang")
    began = time.monotonic()
    found = by_id(checks.check(npu_parameters(tmp_path, checks=limits(timeout_s=1))))
    assert time.monotonic() - began < 20
    assert (
        found["npu.smi"]["found"]
        == f"no answer within 1 s from: {shlex.quote(f'{FAKE}/npu-smi')} info"
    )
    assert found["npu.tls"]["state"] == found["disk.code"]["state"] == "ok"


def test_a_group_that_breaks_hides_nothing(tmp_path, monkeypatch):
    def breaks(group):
        group.add("x.first", "first", True, found="kept")
        raise ZeroDivisionError("by nothing")

    groups = (("x", "examples", breaks), *checks._GROUPS[:2])
    monkeypatch.setattr(checks, "_GROUPS", groups)
    found = by_id(checks.check(parameters(tmp_path)))
    assert found["x.first"]["state"] == "ok"
    assert found["x.looked"]["state"] == "failed"
    assert found["x.looked"]["found"] == "these checks broke: ZeroDivisionError: by nothing"
    assert "system.os" in found and "names.host" in found


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    state = tmp_path / "work" / "state"
    state.mkdir(parents=True)
    (state / "p0.json").write_text("{")
    port = free_port()
    found = by_id(checks.check(npu_parameters(tmp_path, ports=[["127.0.0.1", port, "x"]])))
    assert found["npu.looked"]["found"].startswith("the record of p0 cannot be read")
    assert found["ports.free"]["state"] == "ok"


def test_a_path_that_may_not_be_read_is_no_break(tmp_path, monkeypatch):
    """Root may read all: the error is raised for it."""

    def denied(group):
        raise PermissionError(13, "Permission denied", "/data/models")

    monkeypatch.setattr(checks, "_GROUPS", (("model", "model", denied),))
    found = by_id(checks.check(parameters(tmp_path)))["model.looked"]
    assert (found["found"], found["todo"]) == (
        "/data/models: Permission denied",
        "ls -ld /data/models",
    )


@pytest.mark.parametrize("python", pythons())
def test_it_runs_from_what_is_shipped_alone(tmp_path, python):
    """On a host there is the archive and nothing else of the project."""
    archive = tmp_path / "jobs.pyz"
    archive.write_bytes(bundle.archive({}, bundle.host_code()))
    given = tmp_path / "given.json"
    given.write_text(json.dumps(npu_parameters(tmp_path)))
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from hostkit.checks import checks;"
        "print(json.dumps(checks.check(json.load(open(sys.argv[2])))))"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, str(archive), str(given)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    )
    assert done.returncode == 0, done.stderr
    found = by_id(json.loads(done.stdout))
    assert found["npu.health"]["state"] == "ok"
    assert not [name for name in found if name.endswith(".looked")]


RECORDED = FACTS / "msprechecker-precheck.txt"


@pytest.fixture
def checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a script under that name."""

    def install(text: str) -> None:
        program = put(tmp_path, "/bin/msprechecker", f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


def others(folder, **more):
    return look(checks_others.look, npu_parameters(folder, **more))


def test_where_it_is_not_installed_it_is_not_missed(tmp_path):
    assert ids(others(tmp_path)) == []


def test_its_findings_are_shown_and_never_decide(tmp_path, checker):
    checker(f'[ "$*" = precheck ] && cat {shlex.quote(str(RECORDED))} && touch msprechecker_env.sh')
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert entry["found"].splitlines() == [
        "system [NOK] 驱动版本",
        "system [RECOMMEND] transparent_hugepage",
    ]


def test_the_file_that_it_writes_is_not_left(tmp_path, checker, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checker(f"pwd > {tmp_path}/where; touch msprechecker_env.sh; echo '- env [OK] X'")
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["found"]) == ("ok", "nothing to say")
    assert not Path((tmp_path / "where").read_text().strip()).exists()
    assert not (tmp_path / "msprechecker_env.sh").exists()


def test_many_findings_are_shortened(tmp_path, checker):
    checker('for i in 1 2 3 4 5 6 7 8 9 10; do echo "- env [NOK] V$i"; done')
    lines = one(others(tmp_path), "other.msprechecker")["found"].splitlines()
    assert (len(lines), lines[-1]) == (9, "and 2 more")


def test_one_that_breaks_or_hangs_is_not_known(tmp_path, checker):
    checker("echo 'unrecognized arguments' >&2; exit 2")
    entry = one(others(tmp_path), "other.msprechecker")
    assert (entry["state"], entry["found"]) == ("unknown", "unrecognized arguments")
    checker("exec sleep 3600")
    entry = one(others(tmp_path, checks=limits(timeout_s=0.3)), "other.msprechecker")
    assert entry["state"] == "unknown"
    assert "no answer within 0.3 s" in entry["found"]


def test_an_engine_without_npus_does_not_ask_it(tmp_path, checker):
    checker("echo '- env [NOK] X'")
    assert look(checks_others.look, parameters(tmp_path)).checks == []
