"""benchmarks/bench_sync.py measures what it says, with a small tree and two hosts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hostkit.base import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.needs("rsync")
@pytest.mark.slow
def test_the_benchmark_compares_with_plain_rsync() -> None:
    words = [sys.executable, ROOT / "benchmarks" / "bench_sync.py", "--json"]
    words += ["--hosts", "2", "--files", "100", "--mib", "1"]
    path = f"{ROOT / 'scripts'}:{ROOT / 'tests' / 'kit'}"
    rows = json.loads(run.run(words, env={"PYTHONPATH": path}, timeout=120).out)
    assert [row["hosts_changed"] for row in rows] == [2, 0, 2, 0]
    assert all(row["plain_s"] > 0 and row["sync_code_s"] > 0 for row in rows)
    assert rows[0]["bytes"] > 1 << 20 > 10000 > rows[2]["bytes"]
