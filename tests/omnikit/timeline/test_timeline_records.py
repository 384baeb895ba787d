"""Records of deployments: which there are, and one of them as a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from timeline_cases import BEGAN, write

from hostkit.base.errors import InputError
from omnikit.timeline import records


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records in a folder of the test's own."""
    monkeypatch.setattr(records, "control_folder", lambda name: tmp_path / name)


def test_a_record_says_what_ran_and_how_it_ended(tmp_path: Path) -> None:
    found = records.read(write(tmp_path))
    assert (found.what, found.owner, found.result) == ("deploy", "ann@bastion:/opt/kit", "ok")
    assert (found.began, found.seconds, found.name) == (BEGAN, 92.0, "20261124T000640Z")
    assert len(found.spans) == 7 and [engine.node for engine in found.engines] == ["p0", "d0"]


def test_a_failure_and_a_kill_are_told_apart(tmp_path: Path) -> None:
    failed = records.read(write(tmp_path, error="p0 died"))
    assert (failed.result, failed.error) == (records.FAILED, "p0 died")
    killed = write(tmp_path, ended=False)
    with killed.open("a") as file:
        file.write('{"kind": "span", "ti')
    assert records.read(killed).result == records.CUT_OFF


SPAN = '"kind": "span", "time": 1, "step": "s", "host": "h", "result": "ok"'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "Expecting value"),
        ("[]", "no object"),
        ("{}", "it has no 'kind'"),
        ("[" * 100_000, "recursion"),
        ('{"kind": "span", "time": 1}', "it has no 'step'"),
        ('{"kind": ["x"], "time": 1}', """'kind' is ["x"], not a text"""),
        ('{"kind": "said", "time": "x"}', "'time' is \"x\", not a time in seconds"),
        ('{"kind": "said", "time": null}', "'time' is null, not a time"),
        ('{"kind": "said", "time": NaN}', "'time' is NaN, not a time"),
        ('{"kind": "said", "time": Infinity}', "'time' is Infinity, not a time"),
        ('{"kind": "said", "time": true}', "'time' is true, not a time"),
        ('{"kind": "said", "time": 1e300}', "'time' is 1e+300, not a time"),
        (f'{{"kind": "said", "time": {"9" * 400}}}', "999…, not a time"),
        (f'{{{SPAN}, "start": "a", "end": 2}}', "'start' is \"a\", not a time"),
        (f'{{{SPAN}, "start": 1, "end": null}}', "'end' is null, not a time"),
        ('{"kind": "span", "time": 1, "step": 5, "host": "h"}', "it has no 'result'"),
        (f'{{{SPAN}, "step": 5, "start": 1, "end": 2}}', "'step' is 5, not a text"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_line_is_named(tmp_path: Path, line: str, said: str, place: int) -> None:
    path = write(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:place], line, *lines[place:]]))
    with pytest.raises(InputError) as raised:
        records.read(path)
    assert raised.value.where == f"{path}:{place + 1}" and said in raised.value.what


def test_only_a_line_that_was_cut_may_be_left_out_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = path.read_text()
    path.write_text(whole + '{"kind": "said", "ti')
    assert records.read(path).result == "ok"
    path.write_text(whole + '{"kind": "said", "time": NaN}')
    with pytest.raises(InputError, match="NaN"):
        records.read(path)


def test_the_newest_one_by_name_and_one_by_path(tmp_path: Path) -> None:
    folder = records.folder("site")
    for name in ("20261101T000000Z", "20261102T000000Z", "20261102T111111Z"):
        write(folder, name)
    assert records.find("site").name == "20261102T111111Z"
    assert records.find("site", "20261101").name == "20261101T000000Z"
    assert records.find("site", str(write(tmp_path, "x"))).name == "x"
    with pytest.raises(InputError, match="2 records begin with '20261102'"):
        records.find("site", "20261102")
    with pytest.raises(InputError, match="there is no record '2025', the newest are: 20261102T11"):
        records.find("site", "2025")


def test_nothing_was_deployed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no deployment of nowhere was recorded"):
        records.find("nowhere")
    assert records.all_of("nowhere") == ([], [])


def test_one_damaged_record_does_not_hide_the_others(tmp_path: Path) -> None:
    write(records.folder("site"), "a")
    (records.folder("site") / "b.jsonl").write_text("")
    found, damaged = records.all_of("site")
    assert [one.name for one in found] == ["a"]
    assert damaged == ["b.jsonl: the record is empty."]
    (records.folder("site") / "b.jsonl").write_text("{}\n{}\n")
    assert records.all_of("site")[1] == [
        "b.jsonl:1: this line is none of a record: it has no 'kind'."
    ]
    with pytest.raises(InputError, match=r"cannot be read"):
        records.read(tmp_path / "none.jsonl")


def test_the_newest_good_one_is_taken_and_the_damaged_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = records.folder("site")
    write(folder, "a")
    (folder / "b.jsonl").write_text('{"kind": "command", "time": null}\n')
    assert records.find("site").name == "a"
    assert capsys.readouterr().err.startswith("left out: b.jsonl:1: this line is none of a record")
    with pytest.raises(InputError, match="none of a record") as raised:
        records.find("site", "b")
    assert raised.value.where == f"{folder}/b.jsonl:1"
    (folder / "a.jsonl").unlink()
    with pytest.raises(InputError, match="none of a record"):
        records.find("site")


def test_the_newest_of_some_commands_else_the_newest() -> None:
    folder = records.folder("site")
    assert records.newest("site", pytest.fail) is None
    for name, what in (("a", "deploy"), ("b", "profile")):
        path = write(folder, name)
        path.write_text(path.read_text().replace('"deploy"', f'"{what}"'))
    deployed = records.newest("site", pytest.fail, records.DEPLOYMENTS)
    assert deployed and deployed.name == "a"
    (folder / "a.jsonl").write_text("")
    damaged: list[str] = []
    left = records.newest("site", damaged.append, records.DEPLOYMENTS)
    assert left and left.what == "profile" and damaged == ["a.jsonl: the record is empty."]
