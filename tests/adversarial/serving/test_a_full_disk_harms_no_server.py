"""While servers serve, a disk that fills up, or that can only be read, ends none of them.

A real file system of 16 MiB holds the records, the logs and the work directory.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from full_disk import Disk
from host_cases import ROLES, a_host, a_node, processes, record_of, running

from hostkit.base import lock, records
from hostkit.base.errors import ActionError
from hostkit.base.health import request, wait_until
from hostkit.base.records import alive
from hostkit.nodes import needed, observe, start_stop

# Real processes, seconds together.
pytestmark = pytest.mark.slow

FULL = pytest.mark.parametrize("broken", ["full", "read-only"])


def a_pair(disk: Disk) -> dict[str, Any]:
    return a_host(disk.path, a_node(disk.path, "d0", "", ""))


def breaks(disk: Disk, how: str) -> None:
    disk.fill() if how == "full" else disk.read_only()


def mends(disk: Disk, how: str) -> None:
    disk.free() if how == "full" else disk.read_only(False)


def serves(server: dict[str, Any]) -> bool:
    return request(server["url"] + "/health", timeout_s=20).status == 200


@FULL
def test_one_server_dies_and_the_others_go_on(disk: Disk, broken: str) -> None:
    with running(a_pair(disk)) as host:
        record = record_of(host, "d0")
        first, second = host["nodes"][0]["servers"]
        breaks(disk, broken)
        os.kill(record["servers"][0]["process"]["pid"], signal.SIGKILL)
        assert wait_until(lambda: not alive(record["servers"][0]["process"]), 30, 0.02)
        # What the record cannot say, the processes do.
        assert wait_until(lambda: not serves(first), 30, 0.02)
        states = [s["state"] for s in observe.observe(host, "d0")["servers"]]
        assert states == ["failed", "ready"]
        assert not wait_until(lambda: not serves(second), 2, 0.1)
        assert alive(record["supervisor"])
        mends(disk, broken)
        # The record is written as soon as that can be.
        assert wait_until(lambda: record_of(host, "d0")["phase"] == "failed", 60, 0.1)
        assert record_of(host, "d0")["servers"][0]["exit"] == -9
        assert serves(second)


@FULL
def test_stop_works(disk: Disk, broken: str) -> None:
    with running(a_pair(disk)) as host:
        record = record_of(host, "d0")
        breaks(disk, broken)
        with records.locked(disk.path / "host.lock", "stop", wait_s=30):
            assert start_stop.stop(host) == {"d0": "stopped"}
        lock.audit(disk.path, "a test", "stop", "ok")
        assert not alive(record["supervisor"]) and not processes(record)
        assert needed.look(host) == {"d0": "start"}
        mends(disk, broken)


@FULL
def test_stop_works_after_the_supervisor_was_killed(disk: Disk, broken: str) -> None:
    node = a_node(disk.path, "d0", "child", "deaf")
    with running(a_host(disk.path, node)) as host:
        record = record_of(host, "d0")
        breaks(disk, broken)
        os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        assert start_stop.stop(host) == {"d0": "stopped"}
        assert not processes(record)
        mends(disk, broken)


@FULL
def test_a_start_that_cannot_be_recorded_is_refused_and_ends_nothing(
    disk: Disk, broken: str
) -> None:
    with running(a_pair(disk)) as host:
        record = record_of(host, "d0")
        host["nodes"][0]["digest"] = "another"
        breaks(disk, broken)
        with pytest.raises(OSError, match=r"No space|Read-only"):
            start_stop.up(host, ROLES)
        assert all(map(serves, host["nodes"][0]["servers"]))
        assert record_of(host, "d0") == record
        mends(disk, broken)


def test_a_lock_that_cannot_be_written_is_still_held_by_one(disk: Disk) -> None:
    (disk.path / "host.lock").write_text("")
    for path in (disk.path / "host.lock", disk.path / "new" / "host.lock"):
        path.parent.mkdir(exist_ok=True)
        breaks(disk, "read-only")
        one, another = (records.locked(path, name) for name in ("one", "another"))
        with one, pytest.raises(ActionError, match="under way"), another:
            pass
        mends(disk, "read-only")


def test_servers_go_on_when_their_logs_cannot_be_written(disk: Disk, tmp_path: Path) -> None:
    """Nothing that they print fails; what was lost is said in the log once there is room."""
    node = a_node(disk.path, "d0", "")
    with running(a_host(disk.path, node)) as host:
        [server] = host["nodes"][0]["servers"]
        log = Path(server["log"])
        disk.fill()
        for _ in range(300):
            assert request(server["url"] + "/say", timeout_s=20).status == 200
        assert serves(server)
        disk.free()
        assert wait_until(
            lambda: serves(server)
            and request(server["url"] + "/say", timeout_s=20).status == 200
            and "bytes could not be written here: No space left" in log.read_text(),
            60,
            0.1,
        )
