"""What check-env found is kept by host."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.checks import base as entry
from omnikit.checks import report


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "control_folder", lambda name: tmp_path / name)


def test_hosts_that_were_not_asked_again_stay(tmp_path: Path) -> None:
    assert report.last("site") == {}
    about = {"ok": True, "required": True, "found": "1", "needed": "1", "todo": ""}
    a, b = (entry.entry(name, name, **about) for name in "ab")
    report.keep("site", {"p0": [a], "d0": []}, {"p0": {"python": "3.9"}})
    report.keep("site", {"p0": [b]}, {})
    found = report.last("site")
    assert found["p0"]["checks"] == [b] and found["p0"]["facts"] == {}
    assert found["d0"]["checks"] == [] and found["d0"]["time"].endswith("Z")


@pytest.mark.parametrize("text", ["", "[]", '{"p0": {}}', '{"p0": null}', "["])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / report.FILE).write_text(text)
    assert report.last("site") == {}
    assert len(report.read("site")[1]) == 1


def test_a_damaged_host_is_left_out_by_name(tmp_path: Path) -> None:
    report.keep("site", {"p0": [{"id": "of another release"}], "d0": []}, {})
    found, faults = report.read("site")
    assert list(found) == ["d0"] and faults == ["the checks of host p0"]
