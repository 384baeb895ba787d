"""Space and write speed, on real disks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from check_cases import ids, limits, look, one, parameters
from needs import needs

from hostkit.checks import disk as checks_disk
from hostkit.checks.disk import write_speed


def disk(folder, **more):
    return look(checks_disk.look, parameters(folder, **more))


def paths(folder, **more):
    return {"model": str(folder / "m"), "log": str(folder / "l"), "code": str(folder), **more}


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB with 16 inodes."""
    needs("mount", root=True)
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=16", "tmpfs", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_space_is_that_of_the_nearest_folder_and_nothing_is_left(tmp_path):
    (tmp_path / "work").mkdir()
    before = everything(tmp_path)
    group = disk(tmp_path, paths=paths(tmp_path, log=str(tmp_path / "work" / "a" / "b")))
    assert ids(group) == [
        "disk.model",
        "disk.log",
        "disk.log.write",
        "disk.code",
        "disk.code.write",
    ]
    assert {entry["state"] for entry in group.checks} == {"ok"}
    assert one(group, "disk.log")["found"].endswith(f" MiB free at {tmp_path}/work")
    assert one(group, "disk.log.write")["found"].endswith(f" MiB/s at {tmp_path}/work")
    assert everything(tmp_path) == before


def test_too_little_space_fails_and_names_the_setting(tmp_path):
    free = {"model": 10**9, "log": 0, "code": 0}
    entry = one(disk(tmp_path, paths=paths(tmp_path), checks=limits(free_mib=free)), "disk.model")
    assert (entry["state"], entry["needed"]) == (
        "failed",
        "at least 1000000000 MiB (checks.free_mib.model)",
    )
    assert f"df -h {tmp_path}" in entry["todo"]


def test_a_slow_disk_is_a_warning(tmp_path):
    group = disk(tmp_path, paths=paths(tmp_path), checks=limits(write_mib_s=10**6))
    entry = one(group, "disk.code.write")
    assert (entry["state"], entry["required"]) == ("warning", False)
    assert entry["needed"] == "at least 1000000 MiB/s (checks.write_mib_s)"


def test_a_disk_without_room_is_not_written_to(small_disk):
    assert write_speed(small_disk, 5) is None
    entry = one(disk(small_disk, paths=paths(small_disk)), "disk.code.write")
    assert (entry["state"], entry["found"]) == ("unknown", "too little space to measure it")
    assert everything(small_disk) == []


def test_a_disk_without_inodes_is_full(small_disk):
    number = 0
    try:
        while True:
            (small_disk / f"f{number}").touch()
            number += 1
    except OSError:
        assert number > 0
    entry = one(disk(small_disk, paths=paths(small_disk)), "disk.code")
    assert (entry["state"], entry["todo"]) == ("failed", f"remove small files: df -i {small_disk}")
    assert entry["found"].endswith("and no inodes left")


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    group = disk(tmp_path, paths=paths(tmp_path, log=str(tmp_path / "file" / "logs")))
    entry = one(group, "disk.log.write")
    assert (entry["state"], entry["required"]) == ("failed", True)
    assert entry["found"] == f"{tmp_path}/file cannot be written to by uid {os.geteuid()}"


def test_a_disk_that_is_mounted_for_reading_only(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    entry = one(disk(small_disk, paths=paths(small_disk)), "disk.code.write")
    assert entry["state"] == "failed"
    assert "mkdir -p" in entry["todo"]


def test_one_disk_is_measured_once(tmp_path):
    group = disk(tmp_path, paths=paths(tmp_path))
    log, code = one(group, "disk.log.write"), one(group, "disk.code.write")
    assert log["found"] == code["found"]
