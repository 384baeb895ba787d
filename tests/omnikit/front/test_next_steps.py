"""What commands say comes next: of every command, in a terminal alone, and what there is."""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from omnikit.front import doors, next_steps

ROOT = Path(__file__).resolve().parents[3]


def names() -> set[str]:
    import tasks

    found = [task for task in tasks.ns.tasks.values() if isinstance(task, doors.Door)]
    return {task.script.stem for task in found if task.script.suffix == ".py"}


def test_every_command_has_its_next_steps_and_they_are_commands() -> None:
    known = names()
    assert set(next_steps._AFTER) == known
    told = {*next_steps._AFTER.values(), *next_steps._IF_NOT.values()}
    assert {step.replace("-", "_") for steps in told for step in steps} <= known


def in_a_terminal(*words: str) -> list[str]:
    """What standard error has, where that is a terminal."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, *words]
    env = {**os.environ, "OMNIKIT_SITE": "", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with subprocess.Popen(
        argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=theirs
    ) as running:
        assert running.stdout is not None
        running.stdout.read()
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 1 << 16):
            said += piece
    except OSError:  # the other end is closed, and all was read
        pass
    os.close(ours)
    return said.decode().splitlines()


@pytest.mark.parametrize("words", [("scripts/config.py",), ("-m", "invoke", "config")])
def test_a_terminal_is_told_and_a_file_is_not(words: tuple[str, ...]) -> None:
    options = ("--environment", "2p1d")
    assert in_a_terminal(*words, *options) == ["next: invoke plan --environment 2p1d"]
    argv = [sys.executable, *words, *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_failed_or_was_not_done_is_not_gone_on_with() -> None:
    said = in_a_terminal("scripts/plan.py", "--environment", "nobody")
    assert said[0].startswith("error:") and not any(line.startswith("next:") for line in said)
    said = in_a_terminal("scripts/make_tiny_model.py", "--dry-run")
    assert said[-1] == "next: the same without --dry-run"


def test_a_host_that_was_only_written_down_is_not_verified_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(next_steps.TERMINAL, "1")
    given = argparse.Namespace(environment="mine", only_file=True)
    next_steps.tell("add_host", given, 0)
    said = "next: invoke setup-keys --environment mine; invoke check-env --environment mine\n"
    assert capsys.readouterr().err == said
