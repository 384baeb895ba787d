"""The question before something that runs is replaced, at a real terminal and without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
CODE = "from hostkit.base import cli; cli.confirm('p0 would be ended.', {yes}); print('went on')"


def at_a_terminal(answer: bytes) -> str:
    """What a person sees who gives an answer; the process has a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(SCRIPTS)
        os.execv(sys.executable, [sys.executable, "-c", CODE.format(yes=False)])
    os.write(terminal, answer)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode()


def without_one(yes: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(yes=yes)],
        cwd=SCRIPTS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
def test_yes_goes_on(answer: bytes) -> None:
    shown = at_a_terminal(answer)
    assert "p0 would be ended." in shown and "went on" in shown


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"what\n"])
def test_anything_else_does_nothing(answer: bytes) -> None:
    shown = at_a_terminal(answer)
    assert "nothing was done" in shown and "went on" not in shown.replace("print('went on')", "")


def test_without_a_terminal_only_yes_goes_on() -> None:
    assert without_one(yes=True) == "went on\n"
    assert "Nobody can be asked here; nothing was done. " not in without_one(yes=True)
    assert "say --yes" in without_one(yes=False)
