"""Checks of a host's disks: space where the model, logs and code are, and how fast it is written.

The file that is written has no name or loses it at once (tempfile.TemporaryFile): nothing is left,
however this ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Optional

from hostkit.base.errors import ToolkitError
from hostkit.checks.base import MIB, Group, existing, within

_TITLES = {"model": "model", "log": "logs", "code": "work directory"}
_WRITTEN = ("log", "code")
_SIZE_MIB = 64
_CHUNK_MIB = 8
_ROOM_MIB = 4 * _SIZE_MIB  # a disk with less is not written to


def look(group: Group) -> None:
    """Space of all paths, speed of those that are written to; one disk is measured once."""
    speeds: dict[int, Optional[float]] = {}
    for what, path in group.given["paths"].items():
        if path:
            try:
                group.answers(path)
                _space(group, what, path)
                if what in _WRITTEN:
                    _speed(group, what, path, speeds)
            except ToolkitError as error:
                group.error(
                    *(f"disk.{what}", f"space for {_TITLES[what]}", error),
                    needed="a file system that answers",
                    todo=f"mount | grep nfs; umount -l the dead one ({path})",
                )


def _space(group: Group, what: str, path: str) -> None:
    there = existing(path)
    disk = os.statvfs(there)
    free, wanted = disk.f_frsize * disk.f_bavail // MIB, group.limits["free_mib"][what]
    names_left = disk.f_files == 0 or disk.f_favail > 0
    group.add(
        *(f"disk.{what}", f"space for {_TITLES[what]}", free >= wanted and names_left),
        found=f"{free} MiB free at {there}" + ("" if names_left else ", and no inodes left"),
        needed=f"at least {wanted} MiB (checks.free_mib.{what})" if wanted else "",
        todo=f"make room: df -h {there}; du -xh -d1 {there} | sort -h | tail"
        if names_left
        else f"remove small files: df -i {there}",
    )


def _speed(group: Group, what: str, path: str, speeds: dict[int, Optional[float]]) -> None:
    name, title = f"disk.{what}.write", f"writing of {_TITLES[what]}"
    there = existing(path)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        group.add(
            *(name, title, False),
            found=f"{there} cannot be written to by uid {os.geteuid()}",
            needed="a folder of this user",
            todo=f"mkdir -p {path} && chown {os.geteuid()} {path}, as root",
        )
        return
    disk = there.stat().st_dev
    if disk not in speeds:
        try:
            speeds[disk] = within(
                2 * group.timeout_s,
                f"writing {_SIZE_MIB} MiB at {there}",
                lambda: write_speed(there, group.timeout_s),
            )
        except OSError as error:
            group.add(
                *(name, title, False),
                found=f"{there}: {error.strerror}",
                needed="a file can be written",
                todo=f"df -h {there}; df -i {there}; mount | grep {there}",
            )
            return
    speed, wanted = speeds[disk], group.limits["write_mib_s"]
    if speed is None:
        group.unknown(name, title, "too little space to measure it", todo=f"df -h {there}")
        return
    group.add(
        *(name, title, speed >= wanted),
        found=f"{speed:.0f} MiB/s at {there}",
        needed=f"at least {wanted} MiB/s (checks.write_mib_s)" if wanted else "",
        todo="choose a folder on a faster disk: paths.work_dir, paths.log_dir",
        required=False,
    )


def write_speed(folder: Path, most_s: float) -> Optional[float]:
    """MiB per second that reach the disk of a folder; None where there is too little space.

    After most_s seconds it measures what it has.
    """
    disk = os.statvfs(folder)
    if disk.f_frsize * disk.f_bavail < _ROOM_MIB * MIB:
        return None
    chunk = os.urandom(MIB) * _CHUNK_MIB  # random: some disks compress
    written, began = 0, time.monotonic()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while written < _SIZE_MIB and time.monotonic() - began < most_s:
            file.write(chunk)
            os.fsync(file.fileno())
            written += _CHUNK_MIB
    return written / max(time.monotonic() - began, 1e-6)
