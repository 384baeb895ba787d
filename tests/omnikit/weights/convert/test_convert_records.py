"""What a conversion knows of earlier ones: nothing foreign is kept, nothing foreign is removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter

pytestmark = pytest.mark.slow


def planned(source: Path) -> w8a8.Conversion:
    return w8a8.plan(headers.read(source))


def run(source: Path, target: Path, convert: Any = convert_shard.convert) -> dict[str, Any]:
    return convert_run.run(planned(source), target, 1, Meter(1, print), convert)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small.make().write(tmp_path / "source", shards=2)


@pytest.fixture
def cut(source: Path, tmp_path: Path) -> Path:
    """The working folder of a run that ended half-way."""

    def fails(*given: Any) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(ActionError):
        run(source, tmp_path / "target", fails)
    return convert_records.work_folder(tmp_path / "target")


def test_half_files_of_all_kinds_are_removed(source: Path, cut: Path, tmp_path: Path) -> None:
    shard = planned(source).shards[0].name
    for name in (shard, f"{shard}.part", ".config.json.4711", "tokenizer_config.json"):
        (cut / name).write_text("half")
    run(source, tmp_path / "target")
    run(source, tmp_path / "whole")
    names = [{path.name for path in (tmp_path / one).iterdir()} for one in ("target", "whole")]
    assert names[0] == names[1]


@pytest.mark.parametrize("begun", [True, False])
def test_files_of_others_are_neither_removed_nor_taken_along(
    source: Path, tmp_path: Path, begun: bool, request: pytest.FixtureRequest
) -> None:
    work = tmp_path / "target.incomplete"
    if begun:
        request.getfixturevalue("cut")
    else:
        work.mkdir()
    (work / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which no conversion") as caught:
        run(source, tmp_path / "target")
    assert "move it away" in str(caught.value.todo)
    assert (work / "notes.txt").read_text() == "mine" and not (tmp_path / "target").exists()


def test_a_file_replaced_before_its_turn_is_noticed(source: Path, tmp_path: Path) -> None:
    """By one of the same size with other places in it: its old header must not be used."""
    conversion = planned(source)
    last = source / conversion.shards[-1].source
    beside = last.with_suffix(".new")
    beside.write_bytes(last.read_bytes())
    beside.replace(last)
    with pytest.raises(ActionError, match="was changed while it was converted") as caught:
        convert_run.run(conversion, tmp_path / "target", 1, Meter(1, print))
    assert caught.value.where == str(last)


def test_a_source_mended_after_its_conversion_is_not_called_unchanged(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    run(source, target)
    assert convert_records.finished(target, planned(source))
    shard = planned(source).shards[0].source
    os.utime(source / shard, ns=(1, 1))
    with pytest.raises(ActionError, match=f"the source's {shard} was written after") as caught:
        convert_records.finished(target, planned(source))
    assert "invoke verify-weights --all" in str(caught.value.todo)


def test_a_small_file_that_is_another_now_is_named(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(source, target)
    (source / "README.md").write_text("come later")
    assert convert_records.finished(target, planned(source))
    (source / "tokenizer_config.json").write_text('{"bos_token": "<x>"}')
    with pytest.raises(ActionError, match=r"its tokenizer_config\.json is not the source's"):
        convert_records.finished(target, planned(source))


def test_a_manifest_that_is_none_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(source, target)
    (target / w8a8.MANIFEST).write_text('{"files": []}')
    with pytest.raises(InputError, match="is no manifest of a conversion"):
        convert_records.finished(target, planned(source))


def test_a_manifest_in_the_source_is_not_taken_along(source: Path, tmp_path: Path) -> None:
    (source / w8a8.MANIFEST).write_text("{}")
    run(source, tmp_path / "target")
    assert convert_records.finished(tmp_path / "target", planned(source))


def test_one_that_another_run_ended_meanwhile_is_taken_as_it_is(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    first = run(source, target)
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    assert run(source, target) == first
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before
    assert not convert_records.work_folder(target).exists()
