"""A long command: its output in a file, lines of progress, and its end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from hostkit.base import command
from hostkit.base import records as base_pids
from hostkit.base.errors import InputError
from hostkit.base.health import wait_until

pytestmark = pytest.mark.slow


def gone(pid: int) -> bool:
    """Whether no process of a session is left."""
    return wait_until(lambda: not base_pids.session_members(pid), 10, 0.05)


def test_output_goes_to_the_log_and_its_end_into_the_result(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = command.watch(["bash", "-c", "echo one; echo two >&2; exit 3"], "x", log=log)
    assert ended.code == 3 and ended.tail == "one\ntwo" and not ended.stalled
    assert log.read_text() == "one\ntwo\n"


def test_what_it_says_last_is_a_line_of_progress_without_secrets(capsys) -> None:
    words = ["bash", "-c", "printf 'at 10%%\\rat 20%% secret'; sleep 0.5"]
    ended = command.watch(
        words, "fetching", say_s=0.2, hide=lambda text: text.replace("secret", "")
    )
    assert ended.code == 0 and "secret" not in ended.said
    said = capsys.readouterr().err
    assert "fetching: at 20%" in said and "secret" not in said


def test_silence_ends_it_with_all_that_it_started() -> None:
    pids: list[int] = []
    started = time.monotonic()
    ended = command.watch(
        ["bash", "-c", "sleep 60 & sleep 60"], "x", stall_s=0.3, on_start=pids.append
    )
    assert ended.stalled and ended.code != 0 and time.monotonic() - started < 20
    assert gone(pids[0])


def test_one_that_does_not_listen_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(command, "_GRACE_S", 0.3)
    pids: list[int] = []
    words = ["bash", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    assert command.watch(words, "x", stall_s=0.3, on_start=pids.append).code == -9
    assert gone(pids[0])


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    pids: list[int] = []

    def on_start(pid: int) -> None:
        pids.append(pid)
        threading.Timer(0.3, os.kill, (os.getpid(), 2)).start()

    with pytest.raises(KeyboardInterrupt):
        command.watch(["bash", "-c", "sleep 60 & sleep 60"], "x", on_start=on_start)
    assert gone(pids[0])


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no-such-program"):
        command.watch(["no-such-program"], "x")
