"""What the dry run prints, and how it ends."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import dry as convert_dry
from omnikit.weights.loadable import small_deepseek as small

SIZES = {"source_bytes": 1 << 20, "target_bytes": 2 << 20}
START = 1.5  # seconds


@pytest.fixture
def rest(tmp_path: Path) -> convert_dry.Rest:
    source = small.make().write(tmp_path / "source", shards=2)
    plan = w8a8.plan(headers.read(source))
    return convert_dry.look(plan, tmp_path / "target")


def test_all_is_said_and_in_json_too(
    rest: convert_dry.Rest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_dry.run(rest, dict(SIZES), START, 2, False) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "source: 1.0 MiB; result: 2.0 MiB"
    for number, line in enumerate(convert_dry.lines(rest), 1):
        assert f"  {number}. {line}" in shown
    assert shown[-2].startswith("time: about ") and shown[-2].endswith("/s of the source")
    assert shown[-1] == f"{rest.target}: would be converted"
    assert convert_dry.run(rest, dict(SIZES), START, 2, True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["actions"] == convert_dry.lines(rest)
    assert found["estimate"]["seconds"] > found["estimate"]["start"] == 1.5


def test_what_can_be_known_is_shown_before_the_measurement_fails(
    rest: convert_dry.Rest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> float:
        assert "to do:" in capsys.readouterr().out
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/place")

    monkeypatch.setattr(convert_dry, "rate", fails)
    with pytest.raises(InputError, match="Read-only file system") as caught:
        convert_dry.run(rest, dict(SIZES), START, 2, False)
    assert caught.value.where == "/place" and "another target" in str(caught.value.todo)
    assert capsys.readouterr().out == f"{rest.target}: cannot be converted\n"


def test_too_little_space_is_no_success(
    rest: convert_dry.Rest, capsys: pytest.CaptureFixture[str]
) -> None:
    small_disk = replace(rest, free=1 << 20)
    with pytest.raises(InputError, match=r"8.7 MiB more, 1.0 MiB are free"):
        convert_dry.run(small_disk, dict(SIZES), START, 2, True)
    found = json.loads(capsys.readouterr().out)
    assert found["result"] == "not enough space" and found["estimate"] is None
    with pytest.raises(InputError):
        convert_dry.run(small_disk, dict(SIZES), START, 2, False)
    shown = capsys.readouterr().out
    assert f"time: not measured, too little space is free in {rest.near}" in shown
