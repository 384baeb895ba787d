"""Completion in the real shells, of what is on the line so far."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What either shell does when somebody presses Tab.
SHELLS = {
    "bash": 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _omnikit_completion',
    "zsh": "emulate -L sh; setopt kshglob noshglob braceexpand;"
    ' COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _omnikit_completion',
}
BEFORE = {"bash": "", "zsh": "autoload -U compinit bashcompinit; compinit -u; bashcompinit;"}


def test_the_task_prints_what_the_script_prints() -> None:
    for argv in (["-m", "invoke", "completion"], ["scripts/completion.py"]):
        done = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True)
        assert "complete -o default -F _omnikit_completion invoke" in done.stdout, done.stderr


def completed(shell: str, *words: str) -> list[str]:
    code = f"{BEFORE[shell]} source <({sys.executable} scripts/completion.py)\n{SHELLS[shell]}\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    argv = [shell, "-c", code, "shell", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.needs("zsh")
@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_environments_and_instances_are_completed(shell: str) -> None:
    assert completed(shell, "invoke", "verify-") == ["verify-serving", "verify-weights"]
    assert "--dry-run" in completed(shell, "invoke", "deploy", "--d")
    assert completed(shell, "invoke", "deploy", "-e", "2") == ["2p1d"]
    assert "18p1d" in completed(shell, "invoke", "deploy", "--environment", "=", "1")
    nodes = completed(shell, "invoke", "stop", "-e", "2p1d", "--instance", "")
    assert nodes == ["p0", "p1", "d0", "d1", "c0"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("invoke", "pull-image", "-e", "2p1d", "--host", "d"), ["d0", "d1"]),
        (("invoke", "pull-image", "--environment=2p1d", "--host", "p1"), ["p1"]),
        (("invoke", "stop", "-e", "nobody", "--instance", ""), []),
        (("invoke", "no-such-command", "--x"), []),
    ],
)
def test_what_cannot_be_known_is_not_offered(words: tuple[str, ...], found: list[str]) -> None:
    argv = [sys.executable, "scripts/completion.py", "--line", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, found, "")
