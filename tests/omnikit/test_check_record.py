"""What check-env found is kept by host."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnikit import check_record


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_record, "control_folder", lambda name: tmp_path / name)


def test_hosts_that_were_not_asked_again_stay(tmp_path: Path) -> None:
    assert check_record.last("site") == {}
    check_record.keep("site", {"p0": [{"id": "a"}], "d0": []}, {"p0": {"python": "3.9"}})
    check_record.keep("site", {"p0": [{"id": "b"}]}, {})
    found = check_record.last("site")
    assert found["p0"]["checks"] == [{"id": "b"}] and found["p0"]["facts"] == {}
    assert found["d0"]["checks"] == [] and found["d0"]["time"].endswith("Z")


@pytest.mark.parametrize("text", ["", "[]", '{"p0": {}}'])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / check_record.FILE).write_text(text)
    assert check_record.last("site") == {}
