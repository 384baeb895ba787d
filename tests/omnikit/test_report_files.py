"""What other commands left, as reports show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_cases
from load_cases import a_raw, a_result
from omnikit import config, load_result, report_files
from omnikit.load_options import Level


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.fill(config.load("local", environ={}), tmp_path)
    return tmp_path / "local"


def test_benchmarks_of_both_forms_with_pictures(filled: Path) -> None:
    found = {one["name"].strip(): one for one in report_files.benchmarks("local", [])}
    own, vllm = found["evening"]["runs"], found["vllm"]["runs"]
    assert [run["concurrency"] for run in own] == [1, 8, 32] and own[1]["ttft_p50"] == 644.0
    assert (own[0]["completed"], own[0]["failed"]) == (99, 1)
    assert vllm[0]["ttft_p50"] == 310.0 and vllm[0]["failed"] == 0 and vllm[0]["rate"] == "inf"
    [picture] = found["evening"]["pictures"]
    assert picture["name"] == "latency"
    assert picture["data"].startswith("data:image/svg+xml;base64,")


def test_pictures_that_are_too_large_are_left_out(filled: Path) -> None:
    folder = next((filled / "benchmarks").glob("2026*"))
    (folder / "large.svg").write_text(" " * (report_files.PICTURE_BYTES + 1))
    for number in range(9):
        (folder / f"n{number}.svg").write_text(" " * (report_files.PICTURE_BYTES - 1))
    pictures = [p for one in report_files.benchmarks("local", []) for p in one["pictures"]]
    assert "large" not in {picture["name"] for picture in pictures}
    assert sum(len(picture["data"]) for picture in pictures) <= report_files.PICTURES_BYTES


def test_profiles(filled: Path) -> None:
    [found] = report_files.profiles("local", [])
    assert found["workers"][1] == ["p0[1]", "prefill", "5", "2.50", "14.0 %", "20.0 %", "0.50"]
    assert found["roles"]["prefill"][1] == ["hcom_allReduce_", "61", "1.80", "18.0 %"]
    [older] = (filled / "profiles").glob("*/summary.json")
    older.write_text('{"instance": "p0"}')
    assert report_files.profiles("local", []) == []


def test_errors_of_logs_by_kind_with_what_to_do(filled: Path) -> None:
    found = report_files.log_errors("local", [])
    assert found is not None
    assert [one["kind"] for one in found["kinds"]] == ["no-space", "ValueError: odd N "]
    assert "disk" in found["kinds"][0]["cause"] and found["kinds"][1]["cause"] == ""
    assert found["not_fetched"] == {"d0": "no answer "}


def test_audit_the_newest_first(filled: Path) -> None:
    assert [one["result"] for one in report_files.audit("local", [])] == ["ok", "failed: d0 died "]


def test_nothing_there_and_damaged_files(filled: Path) -> None:
    assert report_files.benchmarks("none", []) == report_files.profiles("none", []) == []
    assert report_files.audit("none", []) == [] and report_files.log_errors("none", []) is None
    for path in [*filled.rglob("*.json"), *filled.parent.glob("logs/*/index.json")]:
        path.write_text("{")
    (filled / "audit.jsonl").write_text('{"time": "x"}\nno json\n[]\n')
    assert report_files.benchmarks("local", []) == report_files.profiles("local", []) == []
    assert report_files.log_errors("local", []) is None
    assert [one["time"] for one in report_files.audit("local", [])] == ["x"]
    for path in filled.parent.glob("logs/*/index.json"):
        path.write_text(json.dumps({"environment": "local", "errors": [{}]}))
    assert report_files.log_errors("local", []) is None


def test_what_benchmark_serving_writes_is_read(filled: Path) -> None:
    folder = filled / "benchmarks" / "2026-11-25_00-00-00"
    folder.mkdir()
    runs = [load_result.run_of(Level(n), a_raw(ms=5.0 * n), 4, 4) for n in (1, 4)]
    runs.append(load_result.run_of(Level(None, 0.5), a_raw(good=0, failed=4), 4, 4))
    load_result.keep(folder, a_result("now", *runs))
    [found] = [one for one in report_files.benchmarks("local", []) if one["name"] == "now"]
    assert [(run["concurrency"], run["rate"]) for run in found["runs"]] == [
        *((1, None), (4, None), (None, 0.5))
    ]
    assert [run["completed"] for run in found["runs"]] == [4, 4, 0]
    assert found["runs"][1]["ttft_p99"] == runs[1]["ttft_ms"]["p99"] is not None
    assert found["runs"][2]["ttft_p99"] is None and found["runs"][2]["failed"] == 4
