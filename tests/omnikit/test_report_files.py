"""What other commands left, as reports show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_cases
from omnikit import config, report_files


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.fill(config.load("local", environ={}), tmp_path)
    return tmp_path / "local"


def test_benchmarks_of_both_forms_with_pictures(filled: Path) -> None:
    found = {one["name"].strip(): one for one in report_files.benchmarks("local")}
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
    pictures = [p for one in report_files.benchmarks("local") for p in one["pictures"]]
    assert "large" not in {picture["name"] for picture in pictures}
    assert sum(len(picture["data"]) for picture in pictures) <= report_files.PICTURES_BYTES


def test_profiles_as_they_are(filled: Path) -> None:
    [found] = report_files.profiles("local")
    assert found["summary"]["top"][0] == {"kernel": "MatMul", "calls": 120, "share": 0.41}


def test_errors_of_logs_by_kind_with_what_to_do(filled: Path) -> None:
    found = report_files.log_errors("local")
    assert found is not None
    assert [one["kind"] for one in found["kinds"]] == ["no-space", "ValueError: odd N "]
    assert "disk" in found["kinds"][0]["cause"] and found["kinds"][1]["cause"] == ""
    assert found["not_fetched"] == {"d0": "no answer "}


def test_audit_the_newest_first(filled: Path) -> None:
    assert [one["result"] for one in report_files.audit("local")] == ["ok", "failed: d0 died "]


def test_nothing_there_and_damaged_files(filled: Path) -> None:
    assert report_files.benchmarks("none") == report_files.profiles("none") == []
    assert report_files.audit("none") == [] and report_files.log_errors("none") is None
    for path in [*filled.rglob("*.json"), *filled.parent.glob("logs/*/index.json")]:
        path.write_text("{")
    (filled / "audit.jsonl").write_text('{"time": "x"}\nno json\n[]\n')
    assert report_files.benchmarks("local") == report_files.profiles("local") == []
    assert report_files.log_errors("local") is None
    assert [one["time"] for one in report_files.audit("local")] == ["x"]
    for path in filled.parent.glob("logs/*/index.json"):
        path.write_text(json.dumps({"environment": "local", "errors": [{}]}))
    assert report_files.log_errors("local") is None
