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


@pytest.mark.parametrize("order", [1, -1])
def test_of_those_found_dead_at_once_the_one_that_was_killed_tells(order: int) -> None:
    dead = [
        server(name="p0.0", state="failed", exit=1, ended_at=1.0),
        server(name="p0.3", state="failed", exit=-9, ended_at=1.0),
    ]
    assert of(look("failed", *dead[::order])) == [("killed", "likely")]


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


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("/health answers 503", "unhealthy"),
        ("/health answers TimeoutError: timed out", "server-hangs"),
        (
            "/health answers TimeoutError: timed out: pid 7 is stopped by a signal (state T)",
            "process-stopped",
        ),
    ],
)
def test_a_server_that_lives_and_is_not_well(reason: str, name: str) -> None:
    assert of(look("ready", server(state="failed", reason=reason))) == [(name, "certain")]


@pytest.mark.parametrize(
    ("state", "reason", "name"),
    [
        ("failed", "its supervisor (pid 7) was killed, and …", "supervisor-killed"),
        ("failed", "the record of p0 cannot be read: … (/d/p0.json)", "record-damaged"),
        ("ready", "its supervisor, pid 7, is stopped by a signal (state T)", "process-stopped"),
    ],
)
def test_what_is_wrong_with_who_watches(state: str, reason: str, name: str) -> None:
    servers = [server(state=state)]
    assert of(look(state, *servers, reason=reason)) == [(name, "certain")]
    assert of({**look(), "nodes": [{**look(state, reason=reason)["nodes"][0], "servers": []}]}) == [
        (name, "certain")
    ]


def test_a_disk_that_became_read_only() -> None:
    seen = look()
    disk = {"path": "/data", "what": ["logs of p0"], "free_mib": 900, "total_mib": 1000}
    seen["machine"]["disks"] = [{**disk, "read_only": True, "no_inodes": False}]
    assert names(rules.machine("h0", seen, LIMITS)) == [("disk-read-only", "certain")]


def pool_of(why: str) -> dict[str, dict[str, Any]]:
    """Looks at a server that the proxy took out for this reason."""
    said = f"2026/11/29 18:37:25 [warn] 12#12: decode server 10.0.0.5:9100 leaves the pool: {why}"
    told = {"said": {"lines": [said]}, "out_of_pool": ["10.0.0.5:9100"]}
    proxy = look("ready", server(name="c0"), **told)
    return {"h0": look("ready", server(name="d0")), "x0": proxy}


@pytest.mark.parametrize(
    ("why", "name"),
    [
        ("its /health: timeout", "proxy-way"),
        ("its /health: connection refused", "proxy-way"),
        ("it cannot be reached", "proxy-way"),
        ("its /health: /health answers with 503", "out-of-pool"),
        ("a real request is answered with 500 or nonsense", "lying-health"),
        ("answers 502", "out-of-pool"),
    ],
)
def test_a_server_that_the_proxy_took_out(why: str, name: str) -> None:
    [found] = rules.pool(pool_of(why), {"10.0.0.5:9100": "d0"}, {})
    assert (found.name, found.on) == (name, ("d0 on h0",))
    assert why in found.evidence[-1] and "d0 gets no requests" in found.evidence[0]


def test_one_that_answers_no_request_is_named_once_and_one_that_is_down_elsewhere() -> None:
    looks, places = pool_of("its /health: timeout"), {"10.0.0.5:9100": "d0"}
    [found] = rules.pool(looks, places, {"d0": "status 500: 'no'"})
    assert found.name == "lying-health" and "status 500: 'no'" in found.evidence[0]
    looks["h0"]["nodes"][0]["servers"][0]["state"] = "failed"
    assert rules.pool(looks, places, {}) == []


def test_a_server_that_is_much_slower_than_the_others() -> None:
    taken = {"decode": {"d0": 0.05, "d1": 0.06, "d2": 1.1}, "prefill": {"p0": 2.0}}
    assert [one.on for one in rules.slow(taken)] == [("d2",)]
    assert rules.slow({"decode": {"d0": 0.01, "d1": 0.02, "d2": 0.3}}) == []


def test_checks_of_devices_are_findings_with_their_own_remedy() -> None:
    made = {"title": "health of the chips", "found": "card 3: Warning", "todo": "reset card 3"}
    bad = {**made, "state": "failed", "required": True}
    [found] = rules.checked("h0", [bad, {**bad, "state": "ok"}, {**bad, "required": False}])
    assert (found.name, found.remedy) == ("device-sick", "reset card 3")


LIMIT = "NixlConnector lets go of it after 30 s (kv_connector_extra_config.kv_lease_duration)"


def kept(*others: dict[str, Any], role: str = "prefill", name: str = "p0.1") -> rules.Finding:
    """Why a node keeps KV while hosts show these."""
    mine = look("ready", server(name=name, kv_usage=0.9), role=role, node=name)
    lets_go = {"p0.1": LIMIT}
    [found] = rules.load("h0", mine, mine, LIMITS, [mine, *others], lets_go)
    return found


def test_kv_whose_client_left_is_given_up_after_a_time() -> None:
    well = look(role="decode", node="d0", restarts={"count": 1, "at": NOW - 900, "why": "x"})
    found = kept(well)  # d0 died before p0 was started
    assert found.name == "kv-client" and "client left" in found.cause
    assert LIMIT in found.remedy
    assert found.remedy.endswith("kept for longer: invoke roll-prefill --instance p0")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (look("failed", role="decode", node="d0", reason="crash loop: x"), "d0 is failed: crash"),
        (
            look(role="decode", node="d0", restarts={"count": 1, "at": NOW, "why": "killed"}),
            "d0 was started again once by itself",
        ),
        (look("ready", server(name="d0", waiting=3), role="decode"), "d0 has 3 requests that wait"),
    ],
)
def test_kv_whose_other_server_is_gone_or_does_not_come(other: dict[str, Any], said: str) -> None:
    found = kept(other)
    assert found.name == "kv-partner" and "invoke deploy" in found.remedy
    assert any(line.startswith(f"at the other end: {said}") for line in found.evidence)


def test_decode_and_a_server_of_both_roles_are_restarted() -> None:
    gone = look("failed", role="prefill", reason=None)
    found = kept(gone, role="decode", name="d0")
    assert found.name == "kv-partner" and "p0 is failed: invoke logs" in found.evidence[1]
    assert found.remedy.endswith("then: invoke restart --instance d0")
    alone = kept(gone, role="colocated", name="s0")
    assert (alone.name, alone.remedy) == ("kv-stuck", "restart it: invoke restart --instance s0")


def test_equal_causes_keep_the_commands_of_each_server() -> None:
    [found] = rules.merged([kept(), kept(role="decode", name="d0"), kept()])
    assert found.remedy.count("invoke roll-prefill --instance p0") == 1
    assert "invoke restart --instance d0" in found.remedy
