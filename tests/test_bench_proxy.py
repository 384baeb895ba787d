from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hostkit.base import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.needs("nginx", "lua")
def test_the_benchmark_compares_with_the_bare_servers():
    words = [sys.executable, ROOT / "benchmarks/bench_proxy.py", "--requests", "30", "--json"]
    result = run.run(words, env={"PYTHONPATH": str(ROOT / "scripts")}, timeout=60)
    found = json.loads(result.out)
    assert (found["kind"], found["requests"]) == ("nginx-lua", 30)
    for key in ("p50_ms", "p99_ms"):
        assert found["bare"][key] > 0 and found["proxy"][key] > 0
        difference = found["proxy"][key] - found["bare"][key]
        assert abs(found["overhead"][key] - difference) < 0.002
