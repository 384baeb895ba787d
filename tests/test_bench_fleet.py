"""benchmarks/bench_fleet.py: its layouts and tables. The measurement itself runs by make bench."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from omnikit.config import config
from omnikit.topology.topology import make_plan

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        path = ROOT / "benchmarks" / "bench_fleet.py"
        spec = importlib.util.spec_from_file_location("bench_fleet", path)
        assert spec is not None and spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize(("hosts", "prefill", "decode"), [(4, 2, 2), (16, 8, 8), (24, 12, 12)])
def test_each_layout_is_an_environment_that_can_be_planned(
    bench: ModuleType, tmp_path: Path, hosts: int, prefill: int, decode: int
) -> None:
    names = bench.layout(hosts)
    rows = "".join(
        f"  {name}: {{address: 192.0.2.{number}}}\n"
        for number, name in enumerate([*names[0], *names[1]], 1)
    )
    path = tmp_path / "bench-fleet.yaml"
    path.write_text(bench.settings(f"hosts:\n{rows}", *names))
    plan = make_plan(config.load(str(path)))
    roles = [node.role for node in plan.nodes]
    assert (roles.count("prefill"), roles.count("decode")) == (prefill, decode)
    told = bench.stand_in_variables([*names[0], *names[1]])
    assert len({tuple(one.items()) for one in told.values()}) == hosts


def test_bars_belong_to_the_fleets_they_are_for(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    times = {"first": (9.0, 8.0, 9.0), "second": (7.0, 4.0, 14.0), "status": (2.0, 1.0, 9.0)}
    bare = {"bare first": (3.0, 1.0, 3.0), "bare second": (1.0, 0.5, 0.2)}
    found = [{"hosts": hosts, "load": 0.5, **times, **bare} for hosts in (4, 16)]
    rows = [figure.row() for figure in bench.figures(found)]
    assert [(row[0], row[3]) for row in rows] == [
        ("2P1D on 4 hosts, first deploy", "yes"),
        ("the same again", "NO"),
        ("status of 16 hosts", "yes"),
    ]
    assert bench.rows(found)[1] == [
        "16",
        "0.5",
        "9.0 s (0.50 s, 50%)",
        "7.0 s (0.25 s, 100%)",
        "2.0 s (0.06 s, 100%)",
        "3.0 s (0.06 s, 50%)",
        "1.0 s (0.03 s, 10%)",
    ]
    assert bench.medians([(1.0, 5.0), (3.0, 1.0), (2.0, 9.0)]) == (2.0, 5.0)


def test_time_is_that_of_what_was_started(bench: ModuleType) -> None:
    loop = "import time\nwhile time.process_time() < 0.3: pass"
    wall, used, everything, result = bench.timed(
        lambda: subprocess.run([sys.executable, "-c", loop], check=True).returncode
    )
    assert result == 0 and wall >= 0.3 and 0.3 <= used < wall + 0.1
    assert everything >= 0.25  # counted in hundredths


def test_connections_are_kept_apart_and_ended(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/before")
    with pytest.raises(ValueError, match="failed"), bench.own_home(tmp_path):
        assert os.environ["HOME"] == str(tmp_path)
        raise ValueError("failed")
    assert os.environ["HOME"] == "/before"
