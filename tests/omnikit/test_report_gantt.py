"""The drawing of a timeline."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from omnikit import report_gantt, timeline_report
from omnikit.report_words import words
from omnikit.timeline_records import read
from timeline_cases import SPANS, write


@pytest.fixture
def timeline(tmp_path: Path) -> dict[str, Any]:
    return timeline_report.as_data(read(write(tmp_path)))


@pytest.mark.parametrize("width", [336, 960])
def test_a_bar_for_every_step_and_server_in_its_place(timeline: Any, width: int) -> None:
    tree = ElementTree.fromstring(report_gantt.draw("g", timeline, width, words("en")))
    bars = {(b.findtext("title") or "").split(":")[0]: b for b in tree.iter("rect")}
    assert len(bars) == 7 + 2 and "d0 starts" in bars
    wait, start = bars["Wait for the servers, d0"], bars["Start the servers, d0"]
    scale = float(wait.get("width", "")) / 80
    assert float(start.get("width", "")) == pytest.approx(2 * scale, abs=0.2)
    assert float(wait.get("x", "")) - float(start.get("x", "")) == pytest.approx(2 * scale, abs=0.2)
    _, _, wide, tall = map(float, tree.get("viewBox", "").split())
    assert all(float(b.get("x", "")) + float(b.get("width", "")) <= wide for b in bars.values())
    assert all(float(b.get("y", "")) + float(b.get("height", "")) <= tall for b in bars.values())


def test_the_slowest_steps_have_colours_and_the_rest_share_one(timeline: Any) -> None:
    kinds = report_gantt.colours(timeline)
    assert kinds["Wait for the servers"] == "step1"
    many = [{"step": f"s{n}"} for n in range(9)]
    assert list(report_gantt.colours({"steps": many}).values())[6:] == ["step0"] * 3
    names = dict(report_gantt.legend(timeline, words("en")))
    assert names["step1"] == "1: Wait for the servers" and names["server"] == "start of a server"
    assert "wrong" not in names


def test_a_failed_step_is_marked(tmp_path: Path) -> None:
    spans = (*SPANS[:4], ("Wait for the servers", "d0", 5.0, 85.0, "failed"))
    made = timeline_report.as_data(read(write(tmp_path, spans=spans, error="x")))
    drawn = report_gantt.draw("g", made, 960, words("en"))
    assert 'class="bar step1 wrong"' in drawn
    tree = ElementTree.fromstring(drawn)
    [cross] = [e for e in tree.iter() if has(e, "✕")]
    assert has(cross, "Wait for the servers, d0: 80.0 s, failed")
    [about] = [e.text or "" for e in tree if e.tag.endswith("desc")]
    assert "Wait for the servers: 80.0 s, d0, failed on d0; " in about
    assert ("wrong", "✕ failed") in report_gantt.legend(made, words("en"))
    assert ("wrong", "✕ 失败") in report_gantt.legend(made, words("zh"))


def has(element: ElementTree.Element, text: str) -> bool:
    return element.tag.endswith("text") and text in "".join(element.itertext())


def test_a_failed_server_is_marked_and_told(timeline: Any) -> None:
    timeline["engines"][1]["result"] = "failed"
    drawn = report_gantt.draw("g", timeline, 960, words("en"))
    assert drawn.count("✕</text>") == 1 and "; d0 starts: failed</desc>" in drawn
    assert ("wrong", "✕ failed") in report_gantt.legend(timeline, words("en"))


@pytest.mark.parametrize("width", [336, 960])
def test_bars_are_told_apart_without_colours(timeline: Any, width: int) -> None:
    tree = ElementTree.fromstring(report_gantt.draw("g", timeline, width, words("en")))
    numbers = [e for e in tree.iter() if e.tag.endswith("text") and (e.text or "").isdigit()]
    bars = [b for b in tree.iter() if b.get("class", "").startswith("bar step")]
    wide = [b for b in bars if float(b.get("width", "")) >= 12]
    assert len(numbers) == len(wide) > 0
    for bar, number in zip(wide, numbers):
        assert bar.get("class") == f"bar step{number.text}"
        middle = float(bar.get("x", "")) + float(bar.get("width", "")) / 2
        assert float(number.get("x", "")) == pytest.approx(middle, abs=0.2)
