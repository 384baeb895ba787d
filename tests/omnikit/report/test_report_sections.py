"""Overview, topology and timeline as blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_cases
import timeline_cases
from timeline_cases import SPANS

from omnikit.report import page
from omnikit.report.words import Words
from omnikit.timeline import records, summary

T = Words("en")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return report_cases.collected(monkeypatch, tmp_path, "2p1d")


def tables(section: Any) -> list[Any]:
    return [block for block in section.blocks if block["kind"] == "table"]


def test_the_overview_has_the_state_the_entry_and_the_last_deployment(data: Any) -> None:
    facts = dict(page.overview(data, T).blocks[0]["facts"])
    assert facts["state"] == "not deployed from here" and facts["state"].kind == "soft"
    data["status"].update(asked=True)
    facts = dict(page.overview(data, T).blocks[0]["facts"])
    assert facts["state"] == "does not serve" and facts["state"].kind == "bad"
    assert facts["entry"] == "192.0.2.11:7000"
    assert facts["instances"] == "2 prefill, 1 decode" and facts["devices"] == "64"
    assert "290.0 s, ok" in facts["last deployment"] and facts["present release"].startswith("3,")


def test_the_timeline_is_drawn_and_told(data: Any) -> None:
    made = page.timeline(data, T)
    assert "by ann@bastion: 290.0 s, ok" in made.blocks[0]["text"]
    steps, hosts, path = tables(made)
    assert steps["rows"][0][0] == "Wait for the servers" and steps["rows"][0][-1] == "ok"
    assert hosts["head"] == ["host", "seconds", "waiting for engines, s", "result"]
    assert [row[0] for row in hosts["rows"]] == ["here", "p0", "p1", "d0", "d1"]
    assert hosts["caption"] == "Hosts" and hosts["rows"][1][-1] == "ok"
    assert path["rows"][-1][-1] == "real requests"
    data["timeline"].update(error="p0 died", spans=[])
    assert [b["text"] for b in page.timeline(data, T).blocks][1:] == ["p0 died"]


def test_the_timeline_says_which_step_failed_on_which_host(data: Any, tmp_path: Path) -> None:
    spans = (*SPANS[:4], ("Wait for the servers", "d0", 5.0, 85.0, "failed"))
    path = timeline_cases.write(tmp_path, spans=spans, error="d0 died\nits log's tail")
    data["timeline"] = summary.as_data(records.read(path))
    made = page.timeline(data, T)
    assert [b["text"] for b in made.blocks[1:3]] == ["d0 died", "its log's tail"]
    steps, hosts, _ = tables(made)
    assert steps["rows"][0][0] == "Wait for the servers" and hosts["style"] == "long"
    assert steps["rows"][0][-1] == "failed on d0" and steps["head"][-1] == "result"
    assert hosts["rows"][-1] == ["d0", "82.0", "80.0", "failed: Wait for the servers"]
    chinese = tables(page.timeline(data, Words("zh")))[1]
    assert chinese["head"] == ["主机", "秒", "等待引擎（秒）", "结果"]
