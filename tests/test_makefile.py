"""The Makefile: what is said to make reaches one task, and no make that the task starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In the place of Invoke: writes down its words and make's variables; bench starts a make, as ours.
INVOKE = """#!/bin/bash
echo "$*" >>words
env | grep -E '^(OPTIONS|RUNTIME|PYTHON|MAKE[A-Z]*|MFLAGS)=' >>variables
[[ $1 != bench ]] || make deploy ENVIRONMENT=inner
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile with nothing to install."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (
        "requirements.txt",
        "requirements-dev.txt",
        "scripts/setup_toolkit.sh",
        ".venv/bin/invoke",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(INVOKE)
    (tmp_path / ".venv/bin/invoke").chmod(0o755)
    for name in (".toolkit-installed", ".toolkit-dev-installed"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


@pytest.mark.parametrize("flags", [[], ["-j2", "-k"]])
def test_options_reach_the_task_and_no_make_that_it_starts(folder: Path, flags: list[str]) -> None:
    words = ["make", *flags, "bench", "OPTIONS=--only deploy", "RUNTIME=docker", "PYTHON=python3"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "words").read_text().splitlines() == ["bench --only deploy", "deploy"]
    assert (folder / "variables").read_text() == ""


def test_options_may_stand_in_the_environment_too(folder: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "OPTIONS": "--only deploy", "MAKEFLAGS": "--no-print-directory"}
    subprocess.run(["make", "bench"], cwd=folder, env=env, check=True, capture_output=True)
    assert (folder / "words").read_text().splitlines() == ["bench --only deploy", "deploy"]


def test_environment_and_runtime_reach_the_task(folder: Path) -> None:
    words = ["make", "deploy", "ENVIRONMENT=2p1d", "RUNTIME=docker", "OPTIONS=--yes"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert (folder / "words").read_text() == "deploy --set runtime=docker --yes\n"
