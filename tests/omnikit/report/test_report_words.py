"""A report in Chinese; that its words are used and have their holes: test_chinese.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_cases

from omnikit.config import config
from omnikit.report import data, page


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
