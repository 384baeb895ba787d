"""State, instances and checks as blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_cases

from omnikit.config import config
from omnikit.report import data as report_data
from omnikit.report import page
from omnikit.report.words import Words

T = Words("en")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return report_cases.collected(monkeypatch, tmp_path, "2p1d")


def tables(section: Any) -> list[Any]:
    return [block for block in section.blocks if block["kind"] == "table"]


def test_the_state_of_every_server_or_that_it_is_not_known(data: Any) -> None:
    assert "no host was asked" in page.state(data, T).blocks[0]["text"]
    assert tables(page.state(data, T)) == []
    data["status"]["asked"] = True
    data["status"]["nodes"][0]["servers"] = [
        {"name": "p0", "state": "ready", "port": 9000, "uptime_s": 61, "kv_usage": 0.5}
    ]
    data["status"]["completion"] = {"passed": True, "found": "'hi'"}
    made = page.state(data, T)
    row = tables(made)[0]["rows"][0]
    assert row[:6] == ["p0", "prefill", "p0", "9000", "ready", "1 min 1 s"] and row[-1] == "50.0%"
    assert row[4].kind == "good"
    assert made.blocks[-1]["text"] == "One completion was answered: 'hi'"
    data["status"] = None
    assert page.state(data, T).blocks[0]["text"] == "The state was not to be had."


def test_many_servers_of_a_node_are_one_row_and_only_the_bad_ones_stand_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.serving(monkeypatch, mixed=True)
    found = report_data.collect(config.load("2p1d", environ={}), False)
    assert len(tables(page.state(found, T))) == 1  # all are as their nodes are
    found["status"]["nodes"][2]["servers"][5]["state"] = "ready"
    found["status"]["nodes"][3]["servers"][7]["state"] = "ready"
    made = page.state(found, T)
    grouped, bad = tables(made)
    rows = {row[0]: row for row in grouped["rows"]}
    assert rows["p0"][3:5] == ["ready", "1/1"] and rows["d0"][4:] == ["1/16", "48", "0", "12.3%"]
    assert {row[4] for row in bad["rows"]} == {"starting", "failed"} and len(bad["rows"]) == 30
    [folded] = [block for block in made.blocks if block["kind"] == "folded"]
    assert folded["summary"] == "All servers (35)" and len(folded["blocks"][0]["rows"]) == 35
    report_cases.serving(monkeypatch)
    found = report_data.collect(config.load("2p1d", environ={}), False)
    assert len(tables(page.state(found, T))) == 1


def test_states_are_in_the_readers_language_and_keep_their_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_cases.redirect(monkeypatch, tmp_path)
    report_cases.serving(monkeypatch, mixed=True)
    found = report_data.collect(config.load("2p1d", environ={}), False)
    cells = [row[3] for row in tables(page.state(found, Words("zh")))[0]["rows"]]
    assert [(cell, cell.kind) for cell in cells[1:4]] == [
        *(("就绪", "good"), ("启动中", "warn"), ("失败", "bad"))
    ]


def test_all_that_is_drawn_is_a_table_too(data: Any) -> None:
    [table] = tables(page.instances(data, T))
    rows = {row[0]: row for row in table["rows"]}
    assert set(rows) == {"p0", "p1", "d0", "d1", "c0"}
    assert rows["d1"][5:7] == ["0-15", "9101-9116"] and rows["c0"][6] == "7000"
    assert rows["p1"][1] == "p1" and rows["d1"][1] == "d0, host 2 of 2"


def test_checks_failures_first_with_their_hosts(data: Any) -> None:
    counts, details = tables(page.checks(data, T))
    assert counts["rows"][0][:6] == ["p0", "warning", "24", "1", "0", "0"]
    assert [row[:3] for row in details["rows"]] == [
        ["free disk", "failed", "p1"],
        ["firmware", "warning", "p0, d1"],
    ]
    _, details = tables(page.checks(data, Words("zh")))
    assert [row[:2] for row in details["rows"]] == [["磁盘剩余空间", "失败"], ["固件", "警告"]]
