"""Records and locks: who is who, and who holds what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostkit.base import records, writing
from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until

HOLDER = """
import sys, pathlib
from hostkit.base.records import locked
with locked(pathlib.Path(sys.argv[1]), "a deploy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_is_told_from_another_of_its_pid() -> None:
    me = records.identity(os.getpid())
    assert records.alive(me)
    assert not records.alive({**me, "start_ticks": me["start_ticks"] + 1})
    assert not records.alive({**me, "boot_id": "another"})
    assert not records.alive(None)


def test_a_dead_or_zombie_process_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    who = records.identity(process.pid)
    assert wait_until(lambda: not records.alive(who), 10, 0.02)  # a zombie by now
    process.wait()
    assert records.start_ticks(process.pid) is None


def test_files_appear_whole_with_their_mode_and_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "f"
    writing.write_atomically(path, "a", 0o600)
    writing.write_atomically(path, "b", 0o640)
    assert path.read_text() == "b" and path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_two_exclude_each_other_and_the_second_learns_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    scripts = Path(records.__file__).parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(scripts)},
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ActionError) as caught, records.locked(path, "mine"):
            pass
        text = str(caught.value)
        assert "a deploy" in text and f"pid {holder.pid}" in text and "since 20" in text
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdin and holder.stdout
        holder.stdin.close()
        holder.stdout.close()
    with records.locked(path, "mine"):  # a dead holder holds nothing
        assert records.lock_holder(path)["pid"] == os.getpid()
    assert records.lock_holder(path) == {}
