"""What other commands left, as reports show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_cases
from load_cases import a_raw, a_result

from omnikit.config import config
from omnikit.load import results
from omnikit.load.levels import Level
from omnikit.report import data


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.fill(config.load("local", environ={}), tmp_path)
    return tmp_path / "local"


def test_benchmarks_of_both_forms_with_pictures(filled: Path) -> None:
    found = {one["name"].strip(): one for one in data.benchmarks("local", [])}
    own, vllm = found["evening"]["runs"], found["vllm"]["runs"]
    assert [run["concurrency"] for run in own] == [1, 8, 32] and own[1]["ttft_p50"] == 644.0
    assert (own[0]["completed"], own[0]["failed"]) == (99, 1)
    assert vllm[0]["ttft_p50"] == 310.0 and vllm[0]["failed"] == 0 and vllm[0]["rate"] == "inf"
    [picture] = found["evening"]["pictures"]
    assert picture["name"] == "latency"
    assert picture["data"].startswith("data:image/svg+xml;base64,")


def test_pictures_that_are_too_large_are_left_out(filled: Path) -> None:
    folder = next((filled / "benchmarks").glob("2026*"))
    (folder / "large.svg").write_text(" " * (data.PICTURE_BYTES + 1))
    for number in range(9):
        (folder / f"n{number}.svg").write_text(" " * (data.PICTURE_BYTES - 1))
    pictures = [p for one in data.benchmarks("local", []) for p in one["pictures"]]
    assert "large" not in {picture["name"] for picture in pictures}
    assert sum(len(picture["data"]) for picture in pictures) <= data.PICTURES_BYTES


def test_profiles(filled: Path) -> None:
    [found] = data.profiles("local", [])
    assert found["workers"][1] == ["p0[1]", "prefill", "5", "2.50", "14.0 %", "20.0 %", "0.50"]
    assert found["roles"]["prefill"][1] == ["hcom_allReduce_", "61", "1.80", "18.0 %"]
    [older] = (filled / "profiles").glob("*/summary.json")
    older.write_text('{"instance": "p0"}')
    assert data.profiles("local", []) == []


def test_errors_of_logs_by_kind_with_what_to_do(filled: Path) -> None:
    found = data.log_errors("local", [])
    assert found is not None
    assert [one["kind"] for one in found["kinds"]] == ["no-space", "ValueError: odd N "]
    assert "disk" in found["kinds"][0]["cause"] and found["kinds"][1]["cause"] == ""
    assert found["not_fetched"] == {"d0": "no answer "}


def test_audit_the_newest_first(filled: Path) -> None:
    assert [one["result"] for one in data.audit("local", [])] == ["ok", "failed: d0 died "]


def test_nothing_there_and_damaged_files(filled: Path) -> None:
    assert data.benchmarks("none", []) == data.profiles("none", []) == []
    assert data.audit("none", []) == [] and data.log_errors("none", []) is None
    for path in [*filled.rglob("*.json"), *filled.parent.glob("logs/*/index.json")]:
        path.write_text("{")
    (filled / "audit.jsonl").write_text('{"time": "x"}\nno json\n[]\n')
    assert data.benchmarks("local", []) == data.profiles("local", []) == []
    assert data.log_errors("local", []) is None
    assert [one["time"] for one in data.audit("local", [])] == ["x"]
    for path in filled.parent.glob("logs/*/index.json"):
        path.write_text(json.dumps({"environment": "local", "errors": [{}]}))
    assert data.log_errors("local", []) is None


def test_what_benchmark_serving_writes_is_read(filled: Path) -> None:
    folder = filled / "benchmarks" / "2026-11-25_00-00-00"
    folder.mkdir()
    runs = [results.run_of(Level(n), a_raw(ms=5.0 * n), 4, 4) for n in (1, 4)]
    runs.append(results.run_of(Level(None, 0.5), a_raw(good=0, failed=4), 4, 4))
    results.keep(folder, a_result("now", *runs))
    [found] = [one for one in data.benchmarks("local", []) if one["name"] == "now"]
    assert [(run["concurrency"], run["rate"]) for run in found["runs"]] == [
        *((1, None), (4, None), (None, 0.5))
    ]
    assert [run["completed"] for run in found["runs"]] == [4, 4, 0]
    assert found["runs"][1]["ttft_p99"] == runs[1]["ttft_ms"]["p99"] is not None
    assert found["runs"][2]["ttft_p99"] is None and found["runs"][2]["failed"] == 4
