"""Both languages have all words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_cases
from omnikit import config, report_data, report_page, report_words

ROOT = Path(__file__).resolve().parents[2]


def test_holes_are_the_same_in_both() -> None:
    for english, chinese in report_words.CHINESE.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese))


def test_every_word_is_used() -> None:
    files = [*(ROOT / "scripts" / "omnikit").glob("report_*.py")]
    files.append(ROOT / "scripts" / "omnikit" / "profile_summary.py")  # has heads of tables
    files.append(ROOT / "templates" / "environment_report.html.j2")
    text = "".join(path.read_text() for path in files if path.stem != "report_words")
    joined = re.sub(r'"\s*\n?\s*"', "", text)  # a text over two lines
    missing = [word for word in report_words.CHINESE if f'"{word}"' not in joined]
    assert [word for word in missing if f"'{word}'" not in joined] == []


@pytest.mark.parametrize("environment", ["local", "2p1d", "18p1d", "colocated", "qwen2.5"])
@pytest.mark.parametrize("full", [True, False])
def test_whole_reports_in_chinese(
    environment: str, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_cases.redirect(monkeypatch, tmp_path)
    loaded = config.load(environment, environ={})
    if full:
        report_cases.fill(loaded, tmp_path)
    made = report_page.page(report_data.collect(loaded, False), "zh")
    assert '<html lang="zh-Hans">' in made and "拓扑" in made
    assert "Overview" not in made and "Topology" not in made
