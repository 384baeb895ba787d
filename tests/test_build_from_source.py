"""scripts/build_from_source.sh as a program: help, exit codes, from any directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "build_from_source.sh"


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_help_names_the_script_and_its_options(tmp_path: Path) -> None:
    done = started(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: build_from_source.sh ")
    for word in ("--only", "--host", "--dir", "--in-container", "--dry-run", "--json"):
        assert word in done.stdout
    assert "exit codes" in done.stdout


@pytest.mark.slow
def test_it_works_from_any_directory_and_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = started(tmp_path, "--dir", "code", "--dry-run", "--only", "build")
    assert done.returncode == 0 and f"cd {tmp_path}/code && bash build/build.sh" in done.stdout
    done = started(tmp_path, "--only", "install", "--dir", "code")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr and not (tmp_path / "code").exists()
