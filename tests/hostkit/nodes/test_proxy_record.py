"""Stop and status: only the recorded process, and its requests first."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest
from launched_proxy import Stream, wanted
from proxy_backend import Backend, free_port

from hostkit.base import run
from hostkit.base.health import request, wait_until
from hostkit.base.records import alive, identity, survivors
from hostkit.nodes import proxy_record
from omnikit.proxy import launch

# Real processes, seconds together.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "njs")]

DEADLINE_S = 10.0


@pytest.fixture
def servers() -> Iterator[list[Backend]]:
    made = [Backend("prefill"), Backend("decode")]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def running(tmp_path: Path, servers: list[Backend]) -> Iterator[tuple[Path, int]]:
    """(run_dir, port) of a proxy that runs."""
    port, run_dir = free_port(), tmp_path / "run"
    launch.up(wanted(tmp_path, port, servers[:1], servers[1:]), run_dir, DEADLINE_S)
    yield run_dir, port
    proxy_record.stop(run_dir, 0.0, DEADLINE_S)


def test_stop_lets_a_request_finish_and_takes_no_new_one(running, servers):
    run_dir, port = running
    held = Stream(port)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(proxy_record.stop, run_dir, 30.0, DEADLINE_S)
        url = f"http://127.0.0.1:{port}/health"
        assert wait_until(lambda: request(url, timeout_s=1).status == 0, DEADLINE_S, 0.02)
        assert not stopping.done()
        servers[1].go_on.set()
        assert b"[DONE]" in held.rest()
        assert stopping.result(DEADLINE_S) == "stopped"
    assert proxy_record.read_record(run_dir) is None
    assert proxy_record.stop(run_dir, 0.0, DEADLINE_S) == "unchanged"


def test_a_request_longer_than_the_grace_is_cut_off_and_said(running, capsys):
    run_dir, port = running
    record = proxy_record.read_record(run_dir)
    held = Stream(port)
    assert proxy_record.stop(run_dir, 0.2, DEADLINE_S) == "stopped"
    assert b"[DONE]" not in held.rest()
    assert "still in flight after 0.2 s" in capsys.readouterr().err
    assert record is not None and survivors(record["process"]) == []


def test_a_stranger_with_the_recorded_pid_lives_on(tmp_path):
    stranger = run.start(["sleep", "60"], output=subprocess.DEVNULL)
    who = identity(stranger.pid)
    record = {"process": {**who, "start_ticks": who["start_ticks"] - 1}}
    (tmp_path / proxy_record.RECORD).write_text(json.dumps(record))
    assert proxy_record.stop(tmp_path, 1.0, DEADLINE_S) == "forgotten"
    assert alive(who)
    # The same with its true identity is ended: the record decides, nothing else.
    (tmp_path / proxy_record.RECORD).write_text(json.dumps({"process": who}))
    assert proxy_record.stop(tmp_path, 1.0, DEADLINE_S) == "stopped"
    assert stranger.wait(5) != 0


def test_a_worker_that_just_ended_is_leaving_one_that_works_is_not(running):
    record = proxy_record.read_record(running[0])
    assert record is not None
    assert not any(proxy_record.is_leaving(pid) for pid in survivors(record["process"]))
    ended = run.start(["true"], output=subprocess.DEVNULL)
    who = identity(ended.pid)
    assert wait_until(lambda: not alive(who), 5, 0.01)  # a zombie: nobody has waited for it yet
    assert proxy_record.is_leaving(ended.pid)
    ended.wait()
    assert proxy_record.is_leaving(ended.pid)


def test_status_tells_running_died_and_stopped_apart(running):
    run_dir, port = running
    found = proxy_record.status(run_dir, 5.0)
    assert (found["state"], found["workers"], found["finishing"]) == ("running", 1, 0)
    assert found["listen"] == f"127.0.0.1:{port}"
    record = proxy_record.read_record(run_dir)
    assert record is not None
    run.end_group(int(record["process"]["pid"]), 9)
    assert wait_until(lambda: not survivors(record["process"]), DEADLINE_S, 0.01)
    assert proxy_record.status(run_dir, 5.0)["state"] == "died"
    assert proxy_record.stop(run_dir, 0.0, DEADLINE_S) == "forgotten"
    assert proxy_record.status(run_dir, 5.0)["state"] == "stopped"


def test_status_counts_old_workers_that_finish_requests(running, servers):
    run_dir, port = running
    record = proxy_record.read_record(run_dir)
    assert record is not None
    held = Stream(port)
    asked = wanted(run_dir.parent, port, servers[:1], servers[1:], max_fails=1)
    assert launch.up(asked, run_dir, DEADLINE_S) == "reloaded"
    found = proxy_record.status(run_dir, 5.0)
    assert (found["workers"], found["finishing"]) == (1, 1)
    servers[1].go_on.set()
    assert b"[DONE]" in held.rest()
