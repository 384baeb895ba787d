"""Start and reload: a real nginx, known by its record."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest
from launched_proxy import Stream, wanted
from port_rooms import free_port
from proxy_backend import Backend

from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import request, wait_until
from hostkit.base.records import alive, survivors
from hostkit.nodes import proxy_run
from omnikit.proxy import launch

# Real processes, seconds together.
pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx", "njs")]

DEADLINE_S = 10.0


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    proxy_run.stop(tmp_path / "run", 0.0, DEADLINE_S)


@pytest.fixture
def servers() -> Iterator[list[Backend]]:
    made = [Backend(role) for role in ("prefill", "decode", "prefill", "decode")]
    yield made
    for one in made:
        one.close()


def up(asked: launch.Wanted, run_dir: Path, reload: bool = False) -> str:
    return launch.up(asked, run_dir, DEADLINE_S, reload=reload)


def process(run_dir: Path) -> dict[str, object]:
    record = proxy_run.read_record(run_dir)
    assert record is not None
    return dict(record["process"])


def test_a_second_start_changes_nothing(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    assert launch.look(asked, run_dir) == "start"
    assert not run_dir.exists()
    assert up(asked, run_dir) == "started"
    before = {path: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    members = survivors(process(run_dir))
    assert up(asked, run_dir) == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before
    assert survivors(process(run_dir)) == members


def test_other_lists_are_taken_over_while_a_request_goes_on(tmp_path, run_dir, servers):
    port = free_port()
    up(wanted(tmp_path, port, servers[:1], servers[1:2]), run_dir)
    first = process(run_dir)
    held = Stream(port)
    assert up(wanted(tmp_path, port, servers[2:3], servers[3:]), run_dir) == "reloaded"
    assert process(run_dir) == first
    answer = request(f"http://127.0.0.1:{port}/v1/completions", body={"prompt": "p"}, timeout_s=9)
    assert answer.status == 200
    assert len(servers[2].seen) == len(servers[3].seen) == 1
    servers[1].go_on.set()
    assert b"[DONE]" in held.rest()


def test_a_reload_may_move_to_another_port(tmp_path, run_dir, servers):
    old, new = free_port(), free_port()
    up(wanted(tmp_path, old, servers[:1], servers[1:2]), run_dir)
    assert up(wanted(tmp_path, new, servers[:1], servers[1:2]), run_dir) == "reloaded"
    assert request(f"http://127.0.0.1:{new}/health", timeout_s=5).status == 200
    assert request(f"http://127.0.0.1:{old}/health", timeout_s=5).status == 0


def test_a_reload_can_be_had_without_a_change_but_not_without_a_proxy(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    with pytest.raises(InputError, match="no running proxy"):
        up(asked, run_dir, reload=True)
    up(asked, run_dir)
    workers = set(survivors(process(run_dir)))
    assert up(asked, run_dir, reload=True) == "reloaded"
    assert set(survivors(process(run_dir))) - workers


def test_a_file_that_nginx_refuses_changes_nothing(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    files = {**asked.files, "nginx.conf": asked.files["nginx.conf"] + "nonsense;\n"}
    with pytest.raises(InputError, match='unknown directive "nonsense"'):
        up(replace(asked, files=files), run_dir)
    assert (run_dir / "nginx.conf").read_text() == asked.files["nginx.conf"]
    assert not list(run_dir.glob("check.*"))
    assert up(asked, run_dir) == "unchanged"


def test_what_only_the_running_nginx_refuses_is_taken_back(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    conf = asked.files["nginx.conf"]
    # A second port, which nginx -t does not try to take.
    taken = conf.replace("    server {\n", f"    server {{\n listen {servers[0].address[1]};\n", 1)
    with pytest.raises(ActionError, match="goes on with the old one") as caught:
        up(replace(asked, files={**asked.files, "nginx.conf": taken}), run_dir)
    assert "in use" in caught.value.what
    assert (run_dir / "nginx.conf").read_text() == conf
    assert up(asked, run_dir) == "unchanged"
    assert request(asked.health_url, timeout_s=5).status == 200


def test_a_start_that_fails_leaves_nothing_and_shows_why(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    conf = asked.files["nginx.conf"]
    taken = conf.replace("    server {\n", f"    server {{\n listen {servers[0].address[1]};\n", 1)
    with pytest.raises(ActionError, match="did not start") as caught:
        up(replace(asked, files={**asked.files, "nginx.conf": taken}), run_dir)
    assert "in use" in caught.value.what
    assert proxy_run.read_record(run_dir) is None


def test_a_taken_port_is_refused_with_its_owner(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    second = tmp_path / "second"
    with pytest.raises(InputError, match=f"taken by pid {process(run_dir)['pid']} ") as caught:
        up(asked, second)
    assert caught.value.where == "--listen-port"
    assert not second.exists()


def test_another_nginx_binary_needs_a_stop_first(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    with pytest.raises(InputError, match="proxy that runs") as caught:
        up(replace(asked, settings={"nginx": "/opt/other/nginx"}), run_dir)
    assert "--stop" in str(caught.value.todo)


def test_workers_that_a_killed_master_left_give_way(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    first = process(run_dir)
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    assert wait_until(lambda: not alive(first), DEADLINE_S, 0.01)
    left = survivors(first)
    assert left
    assert up(asked, run_dir) == "started"
    assert not set(left) & set(survivors(process(run_dir)))
    assert request(asked.health_url, timeout_s=5).status == 200


def test_a_record_that_cannot_be_read_is_no_absence(tmp_path, run_dir, servers):
    run_dir.mkdir()
    (run_dir / proxy_run.RECORD).write_text("{")
    with pytest.raises(ActionError, match="cannot be read"):
        launch.look(wanted(tmp_path, free_port(), servers[:1], servers[1:2]), run_dir)
    (run_dir / proxy_run.RECORD).unlink()


def test_the_record_says_which_process_and_which_files(tmp_path, run_dir, servers):
    asked = wanted(tmp_path, free_port(), servers[:1], servers[1:2])
    up(asked, run_dir)
    record = json.loads((run_dir / proxy_run.RECORD).read_text())
    assert record["digest"] == launch.digest(asked, run_dir)
    assert record["process"]["start_ticks"] and record["process"]["boot_id"]
    other = wanted(tmp_path, asked.port, servers[:1], servers[3:])
    assert record["digest"] != launch.digest(other, run_dir)
