"""What a server started ends with it, whatever session, parent or environment it took; and
nothing else does: not what has a similar name, not who got a pid that was ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from full_disk import escaping, helpers_of
from host_cases import ROLES, a_host, record_of, running

from hostkit.base.health import wait_until
from hostkit.base.records import alive, identity
from hostkit.nodes import family, start_stop

# Real processes, seconds together.
pytestmark = pytest.mark.slow

WAYS = ["setsid", "double bare", "double deaf"]


@pytest.fixture(params=["control groups", "descent"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By what they are found; an ordinary user may make no control groups."""
    return str(request.param)


def host_of(folder: Path, means: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    host = a_host(folder, *nodes)
    if means == "descent":
        code = folder / "scripts" / "hostkit" / "nodes" / "family.py"
        code.write_text(code.read_text().replace(" - cgroup2 ", " - no such file system "))
    return host


def bystander(port: int) -> subprocess.Popen[bytes]:
    """Somebody else's process with a helper's name."""
    code = f"import time; time.sleep(600)  # {port}"
    return subprocess.Popen(["helper", "-c", code], executable=sys.executable)


@pytest.mark.parametrize("how", WAYS)
def test_stop_ends_them(tmp_path: Path, means: str, how: str) -> None:
    node = escaping(tmp_path, "d0", how)
    with running(host_of(tmp_path, means, node)) as host:
        [server] = node["servers"]
        assert wait_until(lambda: bool(helpers_of(server)), 30, 0.05)
        start_stop.stop(host)
        assert not helpers_of(server)


@pytest.mark.parametrize("how", ["setsid", "double deaf"])
def test_they_end_with_their_server_and_those_of_others_stay(
    tmp_path: Path, means: str, how: str
) -> None:
    node = escaping(tmp_path, "d0", how, how)
    with running(host_of(tmp_path, means, node)) as host:
        first, second = node["servers"]
        assert wait_until(lambda: bool(helpers_of(first) and helpers_of(second)), 30, 0.05)
        kept = helpers_of(second)
        os.kill(record_of(host, "d0")["servers"][0]["process"]["pid"], signal.SIGKILL)
        assert wait_until(lambda: not helpers_of(first), 60, 0.05)
        assert set(kept) <= set(helpers_of(second))


@pytest.mark.parametrize("how", ["setsid", "double deaf"])
def test_stop_ends_them_after_the_supervisor_was_killed(
    tmp_path: Path, means: str, how: str
) -> None:
    node = escaping(tmp_path, "d0", how)
    with running(host_of(tmp_path, means, node)) as host:
        [server] = node["servers"]
        assert wait_until(lambda: bool(helpers_of(server)), 30, 0.05)
        record = record_of(host, "d0")
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        assert wait_until(lambda: not alive(record["supervisor"]), 30, 0.02)
        start_stop.stop(host)
        assert not helpers_of(server)
        assert not alive(record["log_writer"])


def test_what_hides_its_environment_was_seen_below_its_server(tmp_path: Path) -> None:
    """Without control groups, the record tells of it after the supervisor was killed."""
    node = escaping(tmp_path, "d0", "setsid bare")
    with running(host_of(tmp_path, "descent", node)) as host:
        [server] = node["servers"]
        assert wait_until(lambda: bool(record_of(host, "d0")["servers"][0]["helpers"]), 60, 0.1)
        os.kill(record_of(host, "d0")["supervisor"]["pid"], signal.SIGKILL)
        start_stop.stop(host)
        assert not helpers_of(server)


def test_stop_ends_by_their_mark_what_a_damaged_record_does_not_name(tmp_path: Path) -> None:
    nodes = [escaping(tmp_path, name, "double") for name in ("p0", "d0")]
    with running(a_host(tmp_path, *nodes)) as host:
        others = bystander(nodes[0]["servers"][0]["port"])
        supervisor = record_of(host, "p0")["supervisor"]
        try:
            for text in ("{half", "[]", '{"servers": [1]}', "null", '{"node": "p0"}', "[" * 10**5):
                (tmp_path / "state" / "p0.json").write_text(text)
                with pytest.raises(Exception, match=r"p0\.json.*invoke stop|invoke stop"):
                    start_stop.up(host, ROLES)
            # One that is slow would write its record again after it was removed.
            os.kill(supervisor["pid"], signal.SIGSTOP)
            done = start_stop.stop(host)
            assert set(done) == {"p0", "d0"}
            assert not alive(supervisor)
            assert helpers_of(nodes[0]["servers"][0]) == [others.pid]
            assert not helpers_of(nodes[1]["servers"][0])
            assert list((tmp_path / "state").glob("*.json")) == []
        finally:
            others.kill()
            others.wait()


def test_nothing_of_others_is_ended(tmp_path: Path) -> None:
    node = escaping(tmp_path, "d0", "double")
    with running(a_host(tmp_path, node)) as host:
        others = bystander(node["servers"][0]["port"])
        try:
            record = record_of(host, "d0")
            me = identity(others.pid)
            # Pids that were ours, and are others' by now.
            stale = {"name": "d0", "state": "ready", "log": "/none", "token": "0" * 16}
            for change in ({"start_ticks": 1}, {"boot_id": "another"}):
                was = {**me, **change}
                servers = [{**stale, "process": was, "helpers": [was]}]
                assert others.pid not in family.members(servers)
            start_stop.stop(host)
            assert others.poll() is None and not alive(record["supervisor"])
        finally:
            others.kill()
            others.wait()


def test_who_stops_is_never_ended_by_it(tmp_path: Path) -> None:
    """Also where it was called from below a server, in a shell that was opened there."""
    mark = f"0123456789abcdef-{os.getpid():x}"
    code = (
        "from hostkit.nodes import family; import os;"
        f"found = family.members([{{'token': '{mark}'}}]);"
        "print(os.getpid() in found, os.getppid() in found)"
    )
    env = {**os.environ, family.MARK: mark, "PYTHONPATH": str(Path(family.__file__).parents[2])}
    words = ["bash", "-c", f'{sys.executable} -c "{code}"; true']
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
