"""The command line that writes files for Prometheus and Grafana."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def write(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/write_metrics_config.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    out = str(tmp_path / "monitoring")
    dry = write("--out", out, "--dry-run")
    assert dry.returncode == 0 and "would be written" in dry.stdout
    assert not (tmp_path / "monitoring").exists()
    first = write("--out", out, "--json")
    assert first.returncode == 0, first.stderr
    assert set(json.loads(first.stdout)["files"].values()) == {"written"}
    second = write("--out", out)
    assert second.stdout.count("unchanged") == 4
    assert f"how to use them: {out}/README.md" in second.stdout


@pytest.mark.parametrize("text", ["9113", "host:", "host:0", "host:70000", "http://h:1", "a b:1"])
def test_a_wrong_exporter_is_misuse(text: str) -> None:
    done = write("-e", "2p1d", "--exporter", text)
    assert done.returncode == 2 and "is no HOST:PORT" in done.stderr


def test_an_exporter_without_a_proxy_is_misuse() -> None:
    done = write("-e", "colocated", "--exporter", "127.0.0.1:9113")
    assert done.returncode == 2 and "colocated has no proxy" in done.stderr


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = write("--out", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert "the files cannot be written" in done.stderr and "--out DIR" in done.stderr
