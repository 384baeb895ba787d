"""The command line that writes files for Prometheus and Grafana."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import vllm_parser

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


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "release"), [("2p1d", "0.9.0"), ("local", "0.32.0")])
def test_every_metric_exists_in_the_environments_vllm(
    environment: str, release: str, engine_python: Path, tmp_path: Path
) -> None:
    """Read in the very vLLM: no NPU is here that could be asked."""
    python = vllm_parser.install() if release == "0.9.0" else engine_python
    (source,) = python.parents[1].glob("lib/python3*/site-packages/vllm/v1/metrics/loggers.py")
    known = set(re.findall(r'"(vllm:[a-z0-9_]+)"', source.read_text(encoding="utf-8")))
    done = write("-e", environment, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    text = "".join((tmp_path / name).read_text() for name in ("alerts.yml", "dashboard.json"))
    used = set(re.findall(r"vllm:[a-z0-9_]+", text))
    assert len(used) > 10
    # The library that vLLM uses appends these to counters and histograms.
    assert {re.sub("_(total|bucket)$", "", name) for name in used} - known == set()
