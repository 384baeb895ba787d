"""Servers out of nginx's configuration; real reloads are in test_roll_prefill."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest
from launched_proxy import Stream, wanted
from port_rooms import free_port
from proxy_backend import Backend

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.base.health import request, wait_until
from hostkit.base.records import alive, identity, survivors
from hostkit.nodes import proxy_run
from omnikit.proxy import launch

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CONF = """http {
    upstream prefill_servers {
        zone prefill_servers 1m;
        server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;
        server 192.0.2.1:90001 max_fails=3;
        server [2001:db8::1]:9001;
        keepalive 16;
    }

    upstream decode_servers {
        server 192.0.2.2:9000;
        server 192.0.2.3:9000;
    }
}
"""


def test_servers_of_both_roles_are_left_out() -> None:
    made = proxy_run.without(CONF, ["192.0.2.1:9000"])
    assert made == CONF.replace(
        "        server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;\n", "", 1
    )
    made = proxy_run.without(CONF, ["[2001:db8::1]:9001", "192.0.2.1:90001"])
    assert "2001" not in made and "90001" not in made and "keepalive 16;" in made
    assert proxy_run.without(CONF, []) == CONF
    made = proxy_run.without(CONF, ["192.0.2.1:9000", "192.0.2.3:9000"])
    assert "192.0.2.1:9000 " not in made and "192.0.2.3" not in made
    assert "server 192.0.2.2:9000;" in made and "192.0.2.1:90001" in made


def test_an_unknown_server_and_the_last_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"no server 192\.0\.2\.9:1"):
        proxy_run.without(CONF, ["192.0.2.9:1"])
    every = ["192.0.2.1:9000", "192.0.2.1:90001", "[2001:db8::1]:9001"]
    with pytest.raises(InputError, match="no prefill server would be left"):
        proxy_run.without(CONF, every)
    with pytest.raises(InputError, match="no decode server would be left"):
        proxy_run.without(CONF, ["192.0.2.2:9000", "192.0.2.3:9000"])


def test_versions_are_given_to_servers_of_both_roles() -> None:
    told = {"192.0.2.1:9000": "v1", "[2001:db8::1]:9001": "v2", "192.0.2.2:9000": "v1"}
    made = proxy_run.with_versions(CONF, told)
    assert made.count("server 192.0.2.1:9000 max_fails=3 fail_timeout=10s;  # version v1\n") == 1
    assert made.count("server 192.0.2.2:9000;  # version v1\n") == 1
    assert proxy_run.versions(made) == told
    again = proxy_run.with_versions(made, {"192.0.2.1:9000": "v3"})
    assert again == made.replace("version v1", "version v3", 1)
    assert proxy_run.without(made, ["192.0.2.1:9000"]).count("version v1") == 1
    assert proxy_run.with_versions(CONF, {}) == CONF


@pytest.mark.parametrize("environment", ["local", "2p1d", "18p1d"])
def test_the_rendered_configurations_are_understood(environment: str) -> None:
    [path] = (GOLDEN / environment).rglob("nginx.conf")
    text = path.read_text()
    block = text.partition("upstream prefill_servers {")[2].partition("}")[0]
    first = next(line for line in block.splitlines() if line.strip().startswith("server "))
    name = first.split()[1].rstrip(";")
    assert proxy_run.without(text, [name]) == text.replace(first + "\n", "", 1)


def test_files_of_another_content_differ(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("a")
    node = {
        "temp_dir": str(tmp_path),
        "files": {"nginx.conf": hashlib.sha256(b"a").hexdigest()},
    }
    assert not proxy_run.differs(node)
    (tmp_path / "nginx.conf").write_text("b")
    assert proxy_run.differs(node)
    (tmp_path / "nginx.conf").unlink()
    assert proxy_run.differs(node)
    assert not proxy_run.differs({"temp_dir": str(tmp_path)})  # of a kind that cannot reload


def test_what_a_running_proxy_does_without_is_seen(tmp_path: Path) -> None:
    node = {"files": {}, "seed_dir": str(tmp_path / "seed"), "temp_dir": str(tmp_path / "run")}
    for name, text in (("seed", CONF), ("run", proxy_run.without(CONF, ["192.0.2.1:9000"]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nginx.conf").write_text(text)
    assert proxy_run.left_out(node) == ["192.0.2.1:9000"]
    (tmp_path / "run" / "nginx.conf").write_text(CONF)
    assert proxy_run.left_out(node) == []
    (tmp_path / "run" / "nginx.conf").unlink()
    assert proxy_run.left_out(node) == []  # it does not run
    assert proxy_run.left_out({}) == []
    assert proxy_run.running_versions({}) == proxy_run.running_versions(node) == {}
    (tmp_path / "run" / "nginx.conf").write_text(
        proxy_run.with_versions(CONF, {"192.0.2.2:9000": "v1"})
    )
    assert proxy_run.running_versions(node) == {"192.0.2.2:9000": "v1"}


def a_program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_comes_from_its_place_else_from_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own" / "nginx", tmp_path / "bin" / "nginx"
    places = [str(own), "nginx"]
    monkeypatch.setenv("PATH", str(other.parent))
    assert proxy_run.program(places) is None
    a_program(other)
    assert proxy_run.program(places) == str(other)
    a_program(own)
    assert proxy_run.program(places) == str(own)
    own.chmod(0o644)  # no program any more
    assert proxy_run.program(places) == str(other)


def test_the_command_of_a_node_gets_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    load = ["bash", "-c", '. ~/.bashrc; exec "$@"', "bash"]
    node = {
        "programs": ["/no/such/nginx", "nginx"],
        "servers": [{"argv": [*load, "/no/such/nginx", "-c", "nginx.conf"]}],
    }
    # What the command loads may have it in PATH, which is not seen from here.
    [server] = proxy_run.with_program(node)["servers"]
    assert server["program"] == "nginx" and server["argv"][4:] == ["nginx", "-c", "nginx.conf"]
    found = a_program(tmp_path / "bin" / "nginx")
    [server] = proxy_run.with_program(node)["servers"]
    assert server["program"] == found
    assert server["argv"] == [*load, found, "-c", "nginx.conf"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    programs = ["/no/such/nginx", "nginx"]
    lacks = proxy_run.lacking("this host", programs, [])
    assert lacks is not None and lacks.where == "proxy.nginx"
    assert "this host has no program" in lacks.what
    assert "/no/such/nginx, then nginx in PATH" in lacks.what and "container.image" in str(lacks)
    a_program(tmp_path / "bin" / "nginx")
    assert proxy_run.lacking("this host", programs, []) is None
    (tmp_path / "there.so").touch()
    conf = [f'load_module "{tmp_path}/{name}.so";' for name in ("a", "there", "b")]
    modules = proxy_run.modules("\n".join(["daemon off;", *conf, ""]))
    lacks = proxy_run.lacking("this host", programs, modules)
    assert lacks is not None and lacks.where == "proxy.modules_dir"
    assert f"this host lacks modules that the proxy loads: {tmp_path}/a.so, {tmp_path}/b.so." in (
        lacks.what
    )


def test_cores_that_this_host_does_not_have_are_a_note() -> None:
    there = os.cpu_count() or 1
    assert proxy_run.unbound(0) == proxy_run.unbound(there) == ""
    note = proxy_run.unbound(there + 1)
    assert f"up to {there}, this host has 0 to {there - 1}" in note and "proxy.start_core" in note
    text = "worker_processes 2;\nworker_cpu_affinity 1000 10000;\n"
    assert (proxy_run.cores(text), proxy_run.cores("worker_processes 2;\n")) == (5, 0)


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
    proxy_run.stop(run_dir, 0.0, DEADLINE_S)


def test_stop_lets_a_request_finish_and_takes_no_new_one(running, servers):
    run_dir, port = running
    held = Stream(port)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(proxy_run.stop, run_dir, 30.0, DEADLINE_S)
        url = f"http://127.0.0.1:{port}/health"
        assert wait_until(lambda: request(url, timeout_s=1).status == 0, DEADLINE_S, 0.02)
        assert not stopping.done()
        servers[1].go_on.set()
        assert b"[DONE]" in held.rest()
        assert stopping.result(DEADLINE_S) == "stopped"
    assert proxy_run.read_record(run_dir) is None
    assert proxy_run.stop(run_dir, 0.0, DEADLINE_S) == "unchanged"


def test_a_request_longer_than_the_grace_is_cut_off_and_said(running, capsys):
    run_dir, port = running
    record = proxy_run.read_record(run_dir)
    held = Stream(port)
    assert proxy_run.stop(run_dir, 0.2, DEADLINE_S) == "stopped"
    assert b"[DONE]" not in held.rest()
    assert "still in flight after 0.2 s" in capsys.readouterr().err
    assert record is not None and survivors(record["process"]) == []


def test_a_stranger_with_the_recorded_pid_lives_on(tmp_path):
    stranger = run.start(["sleep", "60"], output=subprocess.DEVNULL)
    who = identity(stranger.pid)
    record = {"process": {**who, "start_ticks": who["start_ticks"] - 1}}
    (tmp_path / proxy_run.RECORD).write_text(json.dumps(record))
    assert proxy_run.stop(tmp_path, 1.0, DEADLINE_S) == "forgotten"
    assert alive(who)
    # The same with its true identity is ended: the record decides, nothing else.
    (tmp_path / proxy_run.RECORD).write_text(json.dumps({"process": who}))
    assert proxy_run.stop(tmp_path, 1.0, DEADLINE_S) == "stopped"
    assert stranger.wait(5) != 0


def test_a_worker_that_just_ended_is_leaving_one_that_works_is_not(running):
    record = proxy_run.read_record(running[0])
    assert record is not None
    assert not any(proxy_run.is_leaving(pid) for pid in survivors(record["process"]))
    ended = run.start(["true"], output=subprocess.DEVNULL)
    who = identity(ended.pid)
    assert wait_until(lambda: not alive(who), 5, 0.01)  # a zombie: nobody has waited for it yet
    assert proxy_run.is_leaving(ended.pid)
    ended.wait()
    assert proxy_run.is_leaving(ended.pid)


def test_status_tells_running_died_and_stopped_apart(running):
    run_dir, port = running
    found = proxy_run.status(run_dir, 5.0)
    assert (found["state"], found["workers"], found["finishing"]) == ("running", 1, 0)
    assert found["listen"] == f"127.0.0.1:{port}"
    record = proxy_run.read_record(run_dir)
    assert record is not None
    run.end_group(int(record["process"]["pid"]), 9)
    assert wait_until(lambda: not survivors(record["process"]), DEADLINE_S, 0.01)
    assert proxy_run.status(run_dir, 5.0)["state"] == "died"
    assert proxy_run.stop(run_dir, 0.0, DEADLINE_S) == "forgotten"
    assert proxy_run.status(run_dir, 5.0)["state"] == "stopped"


def test_status_counts_old_workers_that_finish_requests(running, servers):
    run_dir, port = running
    record = proxy_run.read_record(run_dir)
    assert record is not None
    held = Stream(port)
    asked = wanted(run_dir.parent, port, servers[:1], servers[1:], max_fails=1)
    assert launch.up(asked, run_dir, DEADLINE_S) == "reloaded"
    found = proxy_run.status(run_dir, 5.0)
    assert (found["workers"], found["finishing"]) == (1, 1)
    servers[1].go_on.set()
    assert b"[DONE]" in held.rest()
