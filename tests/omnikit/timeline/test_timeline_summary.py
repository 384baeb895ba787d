"""What invoke timeline prints."""

from __future__ import annotations

import json
from pathlib import Path

from timeline_cases import SPANS, write

from omnikit.timeline import records, summary
from omnikit.timeline.records import read


def test_the_text_names_steps_hosts_path_and_share_of_waiting(tmp_path: Path) -> None:
    record = read(write(tmp_path))
    text = summary.as_text(record, "site", 10)
    assert "deploy of site, 2026-" in text and "ann@bastion: 92.0 s, ended well" in text
    assert "waiting for engines: 80.0 s of 92.0 s (87%)" in text
    assert "Wait for the servers  80.0     87%    2      d0 80.0       40.0" in text
    assert "invoke timeline --trace FILE" in text
    records.write_beside(record.path)
    assert ".trace.json" in summary.as_text(record, "site", 10)


def test_only_so_many_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    text = summary.as_text(read(write(tmp_path)), "site", 2)
    assert "and 3 more, see --top" in text and "set up  " not in text.split("critical path")[0]


def test_the_data_reads_back_and_counts_from_the_start(tmp_path: Path) -> None:
    data = json.loads(json.dumps(summary.as_data(read(write(tmp_path)))))
    assert (data["seconds"], data["waiting_for_engines"], data["result"]) == (92.0, 0.87, "ok")
    assert data["spans"][1]["start"] == 3.0 and data["engines"][1]["end"] == 84.0
    assert data["critical_path"][-1]["step"] == "real requests"
    assert data["trace"] is None


def test_failures_and_records_without_steps(tmp_path: Path) -> None:
    failed = read(write(tmp_path, error="p0 died\nmore"))
    assert "92.0 s, failed: p0 died\nmore\n" in summary.as_text(failed, "site", 10)
    early = read(write(tmp_path, error="p0 died\nmore", spans=()))
    assert "failed: p0 died\nmore\nit ended" in summary.as_text(early, "site", 10)
    empty = read(write(tmp_path, spans=(), ended=False))
    text = summary.as_text(empty, "site", 10)
    assert "cut off" in text and "ended before its first step" in text
    assert "cut off" in summary.listing([empty])


def test_steps_and_hosts_that_failed_are_shown_however_quick_they_were(tmp_path: Path) -> None:
    spans = (*SPANS[:-2], ("Start the proxy", "p1", 85.0, 85.1, "failed"))
    record = read(write(tmp_path, spans=spans, error="no proxy"))
    text = summary.as_text(record, "site", 1)
    rows = [line.split() for line in text.splitlines()]
    assert ["Start", "the", "proxy", "0.1", "0%", "1", "p1", "-", "failed", "on", "p1"] in rows
    assert ["p1", "0.1", "0%", "0.0", "failed:", "Start", "the", "proxy"] in rows
    assert "and 2 more, see --top" in text
    data = summary.as_data(record)
    assert data["hosts"]["p1"]["result"] == "failed: Start the proxy"
    assert data["steps"][-1]["result"] == "failed on p1"
