"""Change, refuse, fail, go back: whole deployments on this machine, of servers ready at once.

The tests share one deployment and build on each other, in order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from hostkit.base.health import request
from hostkit.checks.warm import resident
from omnikit.config.layers import control_folder

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "tests/environments/breadth.yaml"
WORK = ROOT / "build" / "test-breadth"
CONTROL = control_folder("breadth")
SERVERS = f"server.command=[python3, {ROOT}/tests/kit/fleet_server.py]"

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "lua")]


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script as from a cron job: without a terminal."""
    return subprocess.run(
        [sys.executable, f"scripts/{name}", "-e", ENVIRONMENT, "--set", SERVERS, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )


def deploy(*words: str, code: int = 0) -> str:
    done = script("deploy.py", *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def pids() -> dict[str, Any]:
    nodes = json.loads(script("status.py", "--json").stdout)["nodes"]
    return {server["name"]: server["pid"] for node in nodes for server in node["servers"]}


def node_names() -> list[str]:
    nodes = json.loads(script("status.py", "--json").stdout)["nodes"]
    return [node["node"] for node in nodes]


def releases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(script("releases.py", "--json").stdout)
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_before_and_after() -> Iterator[None]:
    script("clean_up.py", "--yes", "--logs")
    for path in sorted(CONTROL.rglob("*"), reverse=True) if CONTROL.exists() else ():
        path.rmdir() if path.is_dir() else path.unlink()
    yield
    script("clean_up.py", "--yes", "--logs")


def test_the_first_deployment_is_a_release_with_a_timeline() -> None:
    said = deploy()
    assert "44 of 44 prompt tokens transferred" in said
    [first] = releases()
    assert first["number"] == 1 and first["changed"]["p0"] == "start"
    [timeline] = (CONTROL / "timelines").glob("*.jsonl")
    steps = {e["step"] for e in map(json.loads, timeline.read_text().splitlines()) if "step" in e}
    assert {"Start the servers", "Wait for the servers", "Start the proxy"} <= steps
    assert timeline.with_suffix(".log").read_text() == said
    shown = json.loads(script("timeline.py", "--json").stdout)
    assert shown["result"] == "ok" and shown["trace"] == str(timeline.with_suffix(".trace.json"))
    assert {one["node"] for one in shown["engines"]} == set(node_names())
    assert 0 < shown["waiting_for_engines_s"] < shown["seconds"]


def test_a_second_deployment_changes_nothing_and_is_no_release() -> None:
    before = pids()
    assert "nothing to change" in deploy()
    assert pids() == before and len(releases()) == 1


def test_nothing_that_serves_is_replaced_without_being_asked() -> None:
    before = pids()
    said = deploy("--set", "roles.prefill.server.env.A=1", code=2)
    assert "p0, p1 would be replaced one by one" in said and "--yes" in said
    assert pids() == before


def test_a_dry_run_asks_the_hosts_and_names_what_differs() -> None:
    before = pids()
    done = script("deploy.py", "--dry-run", "--set", "roles.prefill.server.env.A=1")
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert (rows["p0"], rows["p1"], rows["d0"]) == ("restart", "restart", "unchanged")
    assert "p0, why: its settings differ: A\n" in done.stdout
    assert pids() == before


def test_another_prefill_instance_leaves_those_that_run_alone() -> None:
    prefill = "topology.prefill=[{hosts: [local]}, {hosts: [local]}, {hosts: [local]}]"
    done = script("deploy.py", "--dry-run", "--set", prefill)
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert (rows["p2"], rows["p0"], rows["d0"], rows["c0:"]) == (
        *("start", "unchanged", "unchanged", "reload"),
    )


def test_a_changed_setting_restarts_only_what_it_concerns() -> None:
    before = pids()
    said = deploy("--yes", "--set", "roles.prefill.server.env.A=1")
    assert "to do: restart p0, restart p1\n" in said
    after = pids()
    assert (after["d0"], after["c0"]) == (before["d0"], before["c0"])
    assert after["p0"] != before["p0"]
    assert releases()[-1]["changed"] == {"p0": "restart", "p1": "restart"}


def test_rollback_brings_the_release_before_back() -> None:
    done = script("rollback.py", "--yes")
    assert done.returncode == 0, done.stderr
    assert "going back to release 1" in done.stderr
    script_text = (WORK / "bundle" / "p0" / "start.sh").read_text()
    assert "export A=" not in script_text
    assert releases()[-1]["note"] == "rollback to 1"


def test_a_failed_change_is_undone_and_what_ran_before_serves_again() -> None:
    before = pids()
    fails = "roles.prefill.server.env.STAND_IN_FAILS=Address already in use"
    said = deploy("--yes", "--set", fails, code=1)
    assert "Address already in use" in said and "Likely cause" in said
    assert "turned back to release" in said
    after = pids()
    assert after["d0"] == before["d0"]
    assert script("status.py").returncode == 0
    assert "STAND_IN_FAILS" not in (WORK / "bundle" / "p0" / "start.sh").read_text()
    assert len(releases()) == 3


def test_keep_leaves_a_failure_to_be_looked_at() -> None:
    fails = "roles.prefill.server.env.STAND_IN_FAILS=kept"
    said = deploy("--yes", "--keep", "--set", fails, code=1)
    assert "kept as it is" in said
    assert script("status.py").returncode == 1
    assert "p0" in deploy()  # the next one mends it


def test_tags_do_single_steps() -> None:
    script("stop.py")
    said = deploy("--tags", "run_server")
    assert "the proxy was not asked for" in said
    assert request("http://127.0.0.1:27000/health", timeout_s=2).status == 0
    said = deploy("--skip-tags", "run_server")
    assert "44 of 44" in said


def test_somebody_elses_lock_is_named_and_broken_only_by_hand() -> None:
    lock = WORK / "deploy.lock"
    held = {"owner": "ann@bastion:/opt", "what": "deploy of breadth", "since": time.time() - 600}
    lock.write_text(json.dumps(held))
    before = pids()
    said = deploy("--yes", "--set", "roles.prefill.server.env.B=1", code=2)
    assert "ann@bastion:/opt is changing this host" in said and "10 min" in said
    assert pids() == before
    shown = script("unlock.py", "--dry-run")
    assert "held by ann@bastion:/opt" in shown.stdout and lock.exists()
    assert "broken: ann@bastion:/opt" in script("unlock.py").stdout
    deploy("--yes", "--set", "roles.prefill.server.env.B=1")
    assert not lock.exists()
    audit = [json.loads(line) for line in (WORK / "audit.jsonl").read_text().splitlines()]
    assert audit[-2]["what"] == "broke the lock of ann@bastion:/opt"
    assert (audit[-1]["what"], audit[-1]["result"]) == ("deploy of breadth", "ok")
    assert any(line["what"] == "stop of breadth" for line in audit)
    here = [json.loads(line) for line in (CONTROL / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in here[-3:]] == ["deploy", "unlock of breadth", "deploy"]
    assert here[-3]["result"].startswith("failed: ") and here[-1]["result"] == "ok"


def test_what_an_older_toolkit_started_is_stopped() -> None:
    """The agent that the host has does not know what this toolkit tells it."""
    agent = WORK / "scripts" / "host_agent.py"
    kept = agent.read_text()
    agent.write_text("import sys\n\nsys.exit('unrecognized arguments')\n")
    done = script("stop.py", "--instance", "d0")
    assert done.returncode == 0, done.stderr
    assert "d0: stopped" in done.stdout + done.stderr
    agent.write_text(kept)
    deploy("--yes")


# One by one it has to be known what ran before: the last release is planned too.
@pytest.mark.parametrize("times", [2, 1], ids=["a change", "nothing to change"])
def test_a_deployment_is_planned_once(times: int) -> None:
    """Its plan is handed on: with a thousand hosts it takes seconds to make."""
    count = (
        "import sys; sys.path.insert(0, 'scripts'); import deploy\n"
        "from omnikit.topology import topology as module\n"
        "real, made = module._Planner.plan, []\n"
        "module._Planner.plan = lambda self: (made.append(1), real(self))[1]\n"
        "code = deploy.main(sys.argv[1:])\n"
        "print(f'planned {len(made)} times'); sys.exit(code)"
    )
    words = ("-e", ENVIRONMENT, "--set", SERVERS, "--set", "roles.prefill.server.env.A=2")
    done = subprocess.run(
        [sys.executable, "-c", count, *words, "--yes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"planned {times} times"


def test_weights_are_read_into_memory_while_the_rest_is_done(tmp_path: Path) -> None:
    """By hosts that serve nothing yet; of the other file nothing else reads a byte."""
    script("stop.py")
    model = tmp_path / "model"
    shutil.copytree(ROOT / "build" / "models" / "tiny-qwen2", model)
    other = model / "other.pt"
    other.write_bytes(os.urandom(8 << 20))
    with other.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert resident(other) == 0
    words = ("--set", "model.generate_seed=null", "--set", f"model.path={model}")
    assert "reading the weights into memory meanwhile, 8.0 MiB" in deploy("--yes", *words)
    assert resident(other) == 8 << 20
    newest = json.loads(script("timeline.py", "--json").stdout)
    [read] = [one for one in newest["spans"] if one["step"] == "Read the weights into memory"]
    assert 0 <= read["start"] <= read["end"] <= newest["seconds"]
    assert "meanwhile" not in deploy(*words)  # they serve


def test_clean_up_leaves_the_logs_alone() -> None:
    done = script("clean_up.py")
    assert done.returncode == 2 and "--yes" in done.stderr
    done = script("clean_up.py", "--yes")
    assert done.returncode == 0, done.stderr
    assert "p0 stopped" in done.stdout
    assert sorted(path.name for path in WORK.iterdir()) == ["audit.jsonl", "logs"]
