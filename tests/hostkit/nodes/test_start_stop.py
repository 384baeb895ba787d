"""Nodes of stand-in servers: started, left, replaced and ended, and nothing else touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
from host_cases import STAND_IN, a_host, a_node, clean, processes, reaches, record_of, write
from port_rooms import free_port

from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.records import alive, recorded_nodes, write_record
from hostkit.nodes import needed, observe, start_stop

# Real processes, seconds together.
pytestmark = pytest.mark.slow

ALL = {"prefill", "decode", "colocated", "proxy"}


@contextmanager
def somebody_else(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, with a command line like ours."""
    words = [sys.executable, str(STAND_IN), str(port)]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(host: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        start_stop.up(host, ALL)
        yield host
    finally:
        clean(host)


def ready(host: dict[str, Any]) -> None:
    verdict, nodes = observe.wait(host, ALL, 15)
    assert verdict == "ready", nodes


def test_up_starts_and_a_second_up_changes_nothing(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", "", ""))) as host:
        ready(host)
        before = record_of(host, "p0")
        assert [s["state"] for s in before["servers"]] == ["ready", "ready"]
        assert start_stop.up(host, ALL) == {"p0": "unchanged"}
        assert record_of(host, "p0") == before


def test_only_what_differs_is_restarted_and_what_is_gone_is_removed(tmp_path: Path) -> None:
    nodes = [a_node(tmp_path, name, "") for name in ("p0", "p1", "d0")]
    with running(a_host(tmp_path, *nodes)) as host:
        ready(host)
        kept = record_of(host, "p0")
        nodes[1]["digest"] = "another"
        host["nodes"] = nodes[:2]
        write(host)
        assert needed.look(host) == {"p0": "unchanged", "p1": "restart", "d0": "remove"}
        done = start_stop.up(host, ALL)
        assert done == {"d0": "removed", "p0": "unchanged", "p1": "restarted"}
        assert record_of(host, "p0") == kept
        ready(host)


def test_one_that_dies_while_starting_ends_the_others_and_is_named(tmp_path: Path) -> None:
    node = a_node(tmp_path, "d0", "ready-after=60", "ready-after=60 exit-after=0.3 status=7")
    with running(a_host(tmp_path, node)) as host:
        verdict, nodes = observe.wait(host, ALL, 15)
        assert verdict == "failed"
        servers = {s["name"]: s for s in nodes[0]["servers"]}
        assert servers["d0.1"]["exit"] == 7
        assert "the stand-in ends as told" in servers["d0.1"]["tail"]
        assert wait_until(lambda: needed.look(host) == {"d0": "start"}, 10, 0.02)
        assert not processes(record_of(host, "d0"))


def test_a_death_after_ready_is_shown_and_nothing_is_restarted(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "d0", "", ""))) as host:
        ready(host)
        victim = record_of(host, "d0")["servers"][1]["process"]
        os.kill(victim["pid"], signal.SIGKILL)
        assert reaches(host, "d0", "failed")
        seen = observe.observe(host, "d0")
        assert seen["state"] == "failed"
        assert [s["state"] for s in seen["servers"]] == ["ready", "failed"]
        assert seen["servers"][1]["exit"] == -9
        assert needed.look(host) == {"d0": "restart"}


def test_the_deadline_is_kept_and_said(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", "ready-after=60"), deadline_s=0.5)
    with running(host):
        assert reaches(host, "p0", "failed")
        seen = observe.observe(host, "p0")
        assert seen["reason"] == "not ready within 0.5 s"
        assert not processes(record_of(host, "p0"))


def test_status_reads_load_from_metrics(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", ""))) as host:
        ready(host)
        server = observe.observe(host, "p0")["servers"][0]
        assert server["running"] == 2.0
        assert server["uptime_s"] >= 0


def test_a_server_of_another_model_is_not_ready(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", "model=other"), deadline_s=0.5)
    with running(host):
        assert reaches(host, "p0", "failed")


def test_stop_ends_all_with_their_children_and_leaves_a_bystander(tmp_path: Path) -> None:
    with somebody_else(free_port()) as bystander:
        nodes = [
            a_node(tmp_path, "p0", "child"),
            a_node(tmp_path, "d0", "deaf", ""),
            a_node(tmp_path, "c0", "", role="proxy"),
        ]
        host = a_host(tmp_path, *nodes)
        with running(host):
            ready(host)
            records = [record_of(host, name) for name in ("p0", "d0", "c0")]
            assert len(processes(records[0])) == 2
            done = start_stop.stop(host)
            assert done == {"c0": "stopped", "d0": "stopped", "p0": "stopped"}
            assert next(iter(done)) == "c0"
            for record in records:
                assert not alive(record["supervisor"]) and not processes(record)
            assert not Path(host["temp_dir"]).exists()
            assert recorded_nodes(tmp_path / "state") == []
            assert start_stop.stop(host) == {}
        assert bystander.poll() is None


def test_stop_of_one_leaves_the_others(tmp_path: Path) -> None:
    with running(a_host(tmp_path, *(a_node(tmp_path, n, "") for n in ("p0", "p1")))) as host:
        ready(host)
        assert start_stop.stop(host, {"p1"}) == {"p1": "stopped"}
        assert alive(record_of(host, "p0")["supervisor"])


def test_stop_during_a_start(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", "ready-after=60"))) as host:
        record = record_of(host, "p0")
        assert start_stop.stop(host) == {"p0": "stopped"}
        assert not alive(record["supervisor"]) and not processes(record)


def test_every_start_prepares_anew(tmp_path: Path) -> None:
    """A supervisor that was killed left its run folder behind, with the word that it is done."""
    node = a_node(tmp_path, "p0", "")
    left = Path(node["temp_dir"]) / "prepared"
    left.parent.mkdir(parents=True, mode=0o700)
    left.touch()
    with running(a_host(tmp_path, node)) as host:
        ready(host)
        assert not left.exists()


def test_a_killed_supervisor_takes_its_servers_along(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", ""))) as host:
        ready(host)
        record = record_of(host, "p0")
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        assert wait_until(lambda: not processes(record), 10, 0.02)
        seen = observe.observe(host, "p0")
        assert seen["state"] == "failed" and "supervisor (pid " in seen["reason"]


def test_what_a_signal_stopped_is_said(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", ""), request_timeout_s=0.5)) as host:
        ready(host)
        record = record_of(host, "p0")
        held = [record["supervisor"]["pid"], record["servers"][0]["process"]["pid"]]
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        seen = observe.observe(host, "p0")
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        said = "is stopped by a signal (state T)"
        assert f"its supervisor, pid {held[0]}, {said}" in seen["reason"]
        assert seen["servers"][0]["state"] == "failed"
        assert seen["servers"][0]["reason"].endswith(f"pid {held[1]} {said}")
        assert observe.observe(host, "p0")["reason"] is None


def test_children_that_outlive_a_killed_server_are_found_and_ended(tmp_path: Path) -> None:
    with running(a_host(tmp_path, a_node(tmp_path, "p0", "child"))) as host:
        ready(host)
        record = record_of(host, "p0")
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        leader = record["servers"][0]["process"]
        assert wait_until(lambda: not alive(leader), 10, 0.02)
        assert processes(record)  # the deaf child lives on
        assert start_stop.stop(host) == {"p0": "stopped"}
        assert not processes(record)


@pytest.mark.parametrize("change", [{"boot_id": "another boot"}, {"start_ticks": 1}])
def test_a_stale_record_never_hits_a_stranger(tmp_path: Path, change: dict[str, Any]) -> None:
    """After a reboot, or when the pid was given to somebody else."""
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    with somebody_else(free_port()) as stranger:
        from hostkit.base.records import identity

        who = {**identity(stranger.pid), **change}
        server = {"name": "p0", "process": who, "log": "/none", "state": "ready"}
        server.update(healthy_at=0, exit=None, started_at=0)
        write_record(
            tmp_path / "state",
            {
                **{"node": "p0", "role": "prefill", "digest": "x", "phase": "ready"},
                **{"supervisor": who, "servers": [server], "started_at": 0, "ready_at": 0},
            },
        )
        assert observe.observe(host, "p0")["state"] in ("stopped", "failed")
        assert start_stop.stop(host) == {"p0": "forgotten"}
        assert stranger.poll() is None


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "p0.json").write_text("{half")
    with pytest.raises(ActionError, match=r"p0\.json"):
        needed.look(host)
    seen = observe.observe(host, "p0")  # and hides nothing else
    assert seen["state"] == "failed" and "the record of p0 cannot be read" in seen["reason"]


def test_problems_name_the_owner_of_a_port_but_not_ourselves(tmp_path: Path) -> None:
    node = a_node(tmp_path, "p0", "")
    with running(a_host(tmp_path, node)) as host:
        ready(host)
        node["digest"] = "another"
        assert needed.problems(host, needed.look(host)) == []
        other = a_node(tmp_path, "p1", "")
        other["ports"] = node["ports"]
        found = needed.problems({**host, "nodes": [other]}, {"p1": "start"})
        assert found == []  # our own p0 holds it and is known
    port = node["ports"][0][1]
    with somebody_else(port) as foreign:
        assert wait_until(lambda: bool(needed.problems(host, {"p0": "start"})), 10, 0.05)
        text = needed.problems(host, {"p0": "start"})[0]
        assert f"port {port}" in text and f"pid {foreign.pid}" in text and "stand_in" in text


def test_problems_of_memory_and_files(tmp_path: Path) -> None:
    node = a_node(tmp_path, "p0", "")
    node["memory_mib"] = 10**9
    node["requires"] = [[str(tmp_path / "config.json"), "the model"]]
    host = a_host(tmp_path, node)
    text = "\n".join(needed.problems(host, needed.look(host)))
    assert "the model is missing" in text and "MiB of memory" in text
    assert needed.lacks_weights(host, needed.look(host))
    (tmp_path / "config.json").write_text("{}")
    assert not needed.lacks_weights(host, needed.look(host))


def test_a_start_that_cannot_happen_says_why(tmp_path: Path) -> None:
    node = a_node(tmp_path, "p0", "")
    host = a_host(tmp_path, node)
    (tmp_path / "bundle" / "host.json").write_text(json.dumps({**host, "nodes": []}))
    with pytest.raises(ActionError, match="could not be started"):
        start_stop.up(host, ALL)
    clean(host)


def test_servers_end_and_our_files_go_but_logs_and_other_files_stay(tmp_path: Path) -> None:
    host = a_host(tmp_path, a_node(tmp_path, "p0", ""))
    (tmp_path / "mine.txt").write_text("mine")
    try:
        start_stop.up(host, {"prefill"})
        assert reaches(host, "p0", "ready")
        record = record_of(host, "p0")
        seen = start_stop.clean({"work_dir": str(tmp_path), "dry_run": True})
        assert seen["changed"] is False and str(tmp_path / "state") in seen["removed"]
        assert processes(record)
        done = start_stop.clean({"work_dir": str(tmp_path)})
    finally:
        start_stop.stop(host)
    assert done["stopped"] == {"p0": "stopped"}
    assert not processes(record)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "mine.txt"]


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    work_dir = tmp_path / "work"
    a_host(work_dir)
    start_stop.clean({"work_dir": str(work_dir), "logs": True})
    assert not work_dir.exists()
    assert start_stop.clean({"work_dir": str(work_dir)})["changed"] is False


def test_a_folder_that_no_deployment_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(InputError, match="left alone"):
        start_stop.clean({"work_dir": str(tmp_path)})
    assert (tmp_path / "state").is_dir()
