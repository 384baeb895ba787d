"""Records of deployments: which there are, and one of them as a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnikit import timeline_records
from omnikit.errors import InputError
from timeline_cases import BEGAN, write


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records in a folder of the test's own."""
    monkeypatch.setattr(timeline_records, "control_folder", lambda name: tmp_path / name)


def test_a_record_says_what_ran_and_how_it_ended(tmp_path: Path) -> None:
    found = timeline_records.read(write(tmp_path))
    assert (found.what, found.owner, found.result) == ("deploy", "ann@bastion:/opt/kit", "ok")
    assert (found.began, found.seconds, found.name) == (BEGAN, 92.0, "20261124T000640Z")
    assert len(found.spans) == 7 and [engine.node for engine in found.engines] == ["p0", "d0"]


def test_a_failure_and_a_kill_are_told_apart(tmp_path: Path) -> None:
    failed = timeline_records.read(write(tmp_path, error="p0 died"))
    assert (failed.result, failed.error) == (timeline_records.FAILED, "p0 died")
    killed = write(tmp_path, ended=False)
    with killed.open("a") as file:
        file.write('{"kind": "span", "ti')
    assert timeline_records.read(killed).result == timeline_records.CUT_OFF


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"kind": "span", "time": 1}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, line, *rest]))
    with pytest.raises(InputError) as raised:
        timeline_records.read(path)
    assert f"{path}:2" in str(raised.value)


def test_the_newest_one_by_name_and_one_by_path(tmp_path: Path) -> None:
    folder = timeline_records.folder("site")
    for name in ("20261101T000000Z", "20261102T000000Z", "20261102T111111Z"):
        write(folder, name)
    assert timeline_records.find("site").name == "20261102T111111Z"
    assert timeline_records.find("site", "20261101").name == "20261101T000000Z"
    assert timeline_records.find("site", str(write(tmp_path, "x"))).name == "x"
    with pytest.raises(InputError, match="2 records begin with '20261102'"):
        timeline_records.find("site", "20261102")
    with pytest.raises(InputError, match="there is no record '2025', the newest are: 20261102T11"):
        timeline_records.find("site", "2025")


def test_nothing_was_deployed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no deployment of nowhere was recorded"):
        timeline_records.find("nowhere")
    assert timeline_records.all_of("nowhere") == ([], [])


def test_one_damaged_record_does_not_hide_the_others(tmp_path: Path) -> None:
    write(timeline_records.folder("site"), "a")
    (timeline_records.folder("site") / "b.jsonl").write_text("")
    found, damaged = timeline_records.all_of("site")
    assert [one.name for one in found] == ["a"]
    assert damaged == ["b.jsonl: the record is empty."]
    with pytest.raises(InputError, match=r"cannot be read"):
        timeline_records.read(tmp_path / "none.jsonl")
