"""scripts/pull_image.sh as a program: help, exit codes, from any directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "pull_image.sh"


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_help_names_the_script_and_its_options(tmp_path: Path) -> None:
    done = started(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: pull_image.sh ")
    for word in ("--host", "--export", "--from-archive", "--dry-run", "--json", "exit codes"):
        assert word in done.stdout


def test_a_dry_run_works_from_any_directory_and_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = started(tmp_path, "--environment", "2p1d", "--dry-run")
    assert done.returncode == 0 and "p1:\n  docker image inspect -- swr." in done.stdout
    done = started(tmp_path, "no image")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
