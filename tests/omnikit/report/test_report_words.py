"""Both languages have all words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import report_cases

from omnikit.config import config
from omnikit.report import data, page, words

ROOT = Path(__file__).resolve().parents[3]


def test_holes_are_the_same_in_both() -> None:
    for english, said in words.chinese()["texts"].items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", said))


def test_every_word_is_used() -> None:
    files = [*(ROOT / "scripts" / "omnikit" / "report").glob("*.py")]
    files.append(ROOT / "scripts" / "omnikit" / "profile" / "summary.py")  # has heads of tables
    files.append(ROOT / "templates" / "environment_report.html.j2")
    text = "".join(path.read_text() for path in files)
    joined = re.sub(r'"\s*\n?\s*"', "", text)  # a text over two lines
    missing = [word for word in words.chinese()["texts"] if f'"{word}"' not in joined]
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
    made = page.page(data.collect(loaded, False), "zh")
    assert '<html lang="zh-Hans">' in made and "拓扑" in made
    assert "Overview" not in made and "Topology" not in made
