"""Weights in the page cache: what the kernel says is there, and what a warm-up makes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from check_cases import recorded
from docker_host import wait_for

from hostkit.base.errors import InputError
from hostkit.checks.warm import begin, resident, told, warm

MIB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two files of weights, none of them in memory, and one of no weights."""
    for name in ("model-1.safetensors", "model-2.safetensors", "notes.txt"):
        path = tmp_path / name
        path.write_bytes(os.urandom(4 * MIB))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(tmp_path / "model-1.safetensors"):
        pytest.fail(f"{tmp_path} is on a file system that keeps all in memory")
    return tmp_path


def test_what_is_read_is_in_memory_and_is_not_read_again(model: Path) -> None:
    seen = warm({"model": str(model), "dry_run": True})
    assert (seen["before"], seen["after"], seen["changed"]) == (0, 0, True)
    done = warm({"model": str(model)})
    assert (done["bytes"], done["before"], done["after"], done["left"]) == (8 * MIB, 0, 8 * MIB, 0)
    assert resident(model / "notes.txt") == 0
    again = warm({"model": str(model)})
    assert (again["before"], again["changed"]) == (8 * MIB, False)


def test_what_has_no_room_is_left(model: Path) -> None:
    done = warm({"model": str(model), "available_mib": 6})
    assert (done["after"], done["left"]) == (4 * MIB, 4 * MIB)


def test_a_part_that_is_in_memory_is_seen(model: Path) -> None:
    with (model / "model-2.safetensors").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no more than is asked for
        os.pread(file.fileno(), MIB, 0)
    assert resident(model / "model-2.safetensors") == MIB
    assert warm({"model": str(model), "dry_run": True})["before"] == MIB


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        warm({"model": str(tmp_path)})


def test_a_process_of_its_own_reads_on_and_says_when_it_was(model: Path, tmp_path: Path) -> None:
    given = {"model": str(model), "work_dir": str(tmp_path / "work")}
    assert told(given) == {"changed": False}
    begun = begin(given)
    assert (begun["changed"], begun["bytes"]) == (True, 8 * MIB)
    wait_for(lambda: "ended" in told(given), "all is read")
    found = told(given)
    assert found["began"] <= found["ended"] and found["after"] == 8 * MIB
    assert begin(given)["why"] == "they are in memory"


def test_nothing_is_read_where_it_does_not_fit_or_is_not_there(model: Path, tmp_path: Path) -> None:
    given = {"model": str(model), "work_dir": str(tmp_path / "work")}
    assert begin({**given, "available_mib": 6})["why"] == "there is no room"
    assert begin({**given, "model": str(tmp_path / "no")})["why"] == "no weights are there."
    assert resident(model / "model-1.safetensors") == 0
    assert not (tmp_path / "work").exists()


def test_nothing_is_read_beside_servers_that_run(model: Path, tmp_path: Path) -> None:
    given = {"model": str(model), "work_dir": str(tmp_path / "work")}
    server = subprocess.Popen(["sleep", "infinity"])
    try:
        recorded(tmp_path, server.pid)
        assert begin(given)["why"] == "servers run"
    finally:
        server.kill()
        server.wait()
    assert begin(given)["changed"]
    wait_for(lambda: "ended" in told(given), "all is read")
