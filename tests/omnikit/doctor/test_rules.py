"""From what hosts show to what is wrong: one look for each rule, and one where all is well."""

from __future__ import annotations

import time
from typing import Any

import pytest

from omnikit.doctor import rules
from omnikit.doctor.rules import Limits

LIMITS = Limits(
    kv_high=0.5, quiet_s=120, look_again_s=5, disk_free_mib=512, tail_bytes=4096, clock_skew_s=2
)
NOW = time.time()


def server(**more: Any) -> dict[str, Any]:
    end = {"lines": ["INFO fine"], "first_line": 1, "bytes": 9, "age_s": 1.0}
    return {
        **{"name": "p0", "state": "ready", "exit": None, "log": "/l/p0/server_0.log"},
        **{"log_end": end, "running": 0, "waiting": 0, "kv_usage": 0.0, "ended_at": None},
        **more,
    }


def look(state: str = "ready", *servers: dict[str, Any], **node: Any) -> dict[str, Any]:
    made = {
        **{"node": "p0", "state": state, "reason": None, "rebooted": False, "digest": "a"},
        **{"sent_digest": "a", "started_at": NOW - 600, "servers": list(servers) or [server()]},
        **node,
    }
    machine = {"disks": [], "lock": None, "up_s": 1e6, "killed": None}
    return {"deployed": True, "nodes": [made], "machine": machine, "time": NOW}


def names(found: list[Any]) -> list[tuple[str, str]]:
    return [(one.name, one.certainty) for one in found]


def of(seen: dict[str, Any], wanted: str = "a") -> list[tuple[str, str]]:
    return names(rules.nodes("h0", seen, {"p0": wanted}, LIMITS))


def test_where_all_is_well_nothing_is_found() -> None:
    assert of(look()) == []
    assert rules.machine("h0", look(), LIMITS) == []
    assert rules.clock("h0", NOW, NOW + 1, NOW + 0.5, LIMITS) == []


@pytest.mark.parametrize(
    ("free", "total", "found"),
    [
        (0, 1000, [("disk-full", "certain")]),
        (20, 100_000, [("disk-full", "likely")]),
        (60, 100, []),
    ],
)
def test_a_disk_is_full_or_nearly(free: int, total: int, found: list[Any]) -> None:
    seen = look()
    disk = {"path": "/data", "what": ["logs of p0"], "no_inodes": False}
    seen["machine"]["disks"] = [{**disk, "free_mib": free, "total_mib": total}]
    assert names(rules.machine("h0", seen, LIMITS)) == found


def test_somebody_who_changes_the_host_is_named() -> None:
    seen = look()
    seen["machine"]["lock"] = {"owner": "ann@b", "what": "deploy of x", "age_s": 300}
    [found] = rules.machine("h0", seen, LIMITS)
    assert found.name == "being-changed" and "ann@b" in found.evidence[0]


def test_a_clock_is_wrong_only_by_more_than_the_way_took() -> None:
    assert names(rules.clock("h0", NOW, NOW + 10, NOW + 9, LIMITS)) == []
    [found] = rules.clock("h0", NOW, NOW + 1, NOW + 61, LIMITS)
    assert found.evidence == ("its clock is 60 s ahead of this machine's",)
    [found] = rules.clock("h0", NOW, NOW + 1, NOW - 60, LIMITS)
    assert "60 s behind" in found.evidence[0]


def test_a_node_that_does_not_run() -> None:
    assert of({**look(), "nodes": []}) == [("not-running", "certain")]
    assert of(look("stopped", rebooted=True)) == [("host-rebooted", "certain")]


def test_a_dead_server_is_explained_by_its_log() -> None:
    said = "OSError: [Errno 98] Address already in use"
    end = {"lines": ["INFO x", said], "first_line": 41, "bytes": 99, "age_s": 3.0}
    [found] = rules.nodes(
        "h0", look("failed", server(state="failed", exit=1, log_end=end)), {"p0": "a"}, LIMITS
    )
    assert (found.name, found.certainty) == ("port-in-use", "likely")
    assert found.evidence[0] == f"/l/p0/server_0.log:42: {said}"


def test_what_is_started_again_and_what_is_not_any_more() -> None:
    waits = "p0 ended with exit status 3; restart 1 of at most 5 in a row, after 2 s"
    dead = server(state="failed", exit=3)
    found = rules.nodes("h0", look("starting", dead, reason=waits), {"p0": "a"}, LIMITS)
    assert names(found)[0] == ("restarting", "certain")
    assert "invoke status" in found[0].remedy
    loop = "crash loop: p0 ended with exit status 3, after 5 restarts in a row; there is no other"
    found = rules.nodes("h0", look("failed", dead, reason=loop), {"p0": "a"}, LIMITS)
    assert names(found)[0] == ("crash-loop", "certain")
    assert found[0].evidence == (f"p0: {loop}",)
    again = {"count": 2, "at": NOW, "why": "p0 ended with exit status -9"}
    seen = look(restarts=again)
    assert of(seen) == []
    [note] = rules.starting("h0", seen)
    assert "p0 was started again 2 times by itself" in note and "exit status -9" in note


def test_a_death_without_a_known_cause_shows_the_last_lines() -> None:
    end = {"lines": ["something odd"], "first_line": 1, "bytes": 9, "age_s": 3.0}
    seen = look("failed", server(state="failed", exit=3, log_end=end))
    [found] = rules.nodes("h0", seen, {"p0": "a"}, LIMITS)
    assert (found.name, found.lines) == ("unknown", ("something odd",))
    assert "invoke logs --instance p0" in found.remedy


def test_the_first_that_died_of_itself_tells() -> None:
    end = {"lines": ["ModuleNotFoundError: No module named 'vllm'"], "first_line": 1}
    dead = [
        server(name="p0.0", state="failed", exit=-15, ended_at=2.0),
        server(name="p0.1", state="failed", exit=1, ended_at=1.0, log_end=end),
    ]
    assert of(look("failed", *dead)) == [("no-engine", "likely")]


def test_a_kill_is_the_kernels_when_the_kernel_says_so() -> None:
    seen = look("failed", server(state="failed", exit=-9))
    assert of(seen) == [("killed", "likely")]
    seen["machine"]["killed"] = [f"[{1e6 - 10:.6f}] Out of memory: Killed process 77 (python)"]
    assert of(seen) == [("killed-for-memory", "certain")]


def test_a_start_that_stands_still() -> None:
    quiet = {"lines": ["INFO loading"], "first_line": 1, "bytes": 9, "age_s": 300.0}
    assert of(look("starting", server(state="starting", log_end=quiet))) == [
        ("log-silent", "likely")
    ]
    moving = {**quiet, "age_s": 3.0}
    assert of(look("starting", server(state="starting", log_end=moving))) == []


def test_what_runs_is_not_what_is_configured() -> None:
    assert of(look(), "b") == [("deploy-pending", "possible")]
    assert of(look(sent_digest="b")) == [("deploy-pending", "possible")]


def test_loads_count_when_both_looks_show_them() -> None:
    stuck = look("ready", server(kv_usage=0.9))
    hangs = look("ready", server(waiting=3))
    assert rules.suspicious(stuck, LIMITS) == {"p0"}
    assert names(rules.load("h0", stuck, stuck, LIMITS)) == [("kv-stuck", "likely")]
    assert names(rules.load("h0", hangs, hangs, LIMITS)) == [("requests-hang", "likely")]
    assert rules.load("h0", stuck, look(), LIMITS) == []
    assert rules.suspicious(look("ready", server(kv_usage=0.9, running=4)), LIMITS) == set()
