"""History, versions, settings, measurements and errors as blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_cases

from omnikit.report import page as more
from omnikit.report.words import Words

T = Words("en")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return report_cases.collected(monkeypatch, tmp_path, "2p1d")


def rows(section: Any) -> list[list[str]]:
    return [row for block in section.blocks if block["kind"] == "table" for row in block["rows"]]


def test_releases_and_audit(data: Any) -> None:
    made = more.releases(data, T)
    [row] = rows(made)
    assert made.blocks[0]["head"][3] == "image ID"  # and not the registry's digest
    assert row[0] == "3" and row[3].endswith("sha256:3dc580743dc5") and row[4] == "0123abcd (dirty)"
    assert [one[3] for one in rows(more.audit(data, T))] == ["ok", "failed: d0 died "]


def test_settings_and_versions_say_where_they_are_from(data: Any) -> None:
    assert ["profile.omni_version", "v0.4.1", "none"] in [
        r[:3] for r in rows(more.settings(data, T))
    ]
    assert ["CANN", "8.2.RC1", "check-env: p0, p1, d0, d1"] in rows(more.versions(data, T))


def test_benchmarks_by_load_with_their_pictures(data: Any) -> None:
    made = more.benchmarks(data, T)
    assert {row[0] for row in rows(made)} == {
        *("as fast as possible", "1 at once", "8 at once", "32 at once")
    }
    [picture] = [block for block in made.blocks if block["kind"] == "picture"]
    assert picture["words"].startswith("picture latency of benchmark evening")


def test_profiles(data: Any) -> None:
    made = more.profiles(data, T)
    assert [row[0] for row in rows(made)][:2] == ["p0[0]", "p0[1]"]
    assert ["hcom_allReduce_", "61", "1.80", "18.0 %"] in rows(made)
    texts = [block["text"] for block in made.blocks if block["kind"] == "text"]
    assert any(text.startswith("not complete: p0: 2 of 3 workers") for text in texts)
    assert "5 of 6 steps" in texts


def test_errors_of_logs(data: Any) -> None:
    made = more.log_errors(data, T)
    assert rows(made)[0][:3] == ["no-space", "3", "p0"] and "df -h" in rows(made)[0][-1]
    assert made.blocks[1] == {
        "kind": "text",
        "text": "Not fetched from d0: no answer ",
        "style": "bad",
    }


def test_what_is_not_there_is_said(data: Any) -> None:
    nothing = {"releases": [], "audit": [], "benchmarks": [], "profiles": [], "settings": []}
    data.update(nothing, logs=None, ranktable=None)
    for section in (more.releases, more.audit, more.benchmarks, more.profiles, more.settings):
        assert [block["kind"] for block in section(data, T).blocks] == ["text"]
    assert "invoke fetch-logs" in more.log_errors(data, T).blocks[0]["text"]
    assert "needs none" in more.rank_tables(data, T).blocks[0]["text"]
