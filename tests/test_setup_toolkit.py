"""The toolkit's own set-up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "setup_toolkit.sh"


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *words],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


@pytest.mark.slow
def test_without_network_there_is_one_clear_message(tmp_path: Path) -> None:
    done = run(
        str(tmp_path / "venv"),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    assert done.returncode == 1
    assert "dependencies could not be installed" in done.stderr
    assert "check that the package index is reachable" in done.stderr


def test_an_unsupported_python_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\necho 'Python 3.6.9'\nexit 1\n")
    fake.chmod(0o755)
    for tool in ("bash", "dirname", "printf", "cat"):
        found = subprocess.run(["which", tool], capture_output=True, text=True).stdout.strip()
        (tmp_path / tool).symlink_to(found or f"/bin/{tool}")
    done = run(str(tmp_path / "venv"), PATH=str(tmp_path), PYTHON="python3")
    assert done.returncode == 2, done.stderr
    assert "no Python 3.11 to 3.13 was found" in done.stderr and "3.6.9" in done.stderr
    assert not (tmp_path / "venv").exists()
