"""The estimate: one rate, measured with what the conversion does."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import dry, shard
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow


@pytest.fixture
def rest(tmp_path: Path) -> dry.Rest:
    source = small.make().write(tmp_path / "source", shards=4)
    return dry.look(w8a8.plan(headers.read(source)), tmp_path / "target")


@pytest.mark.parametrize(("free", "threads"), [(1 << 40, 1), (1 << 40, 20), (3 << 20, 2)])
def test_a_rate_is_measured_and_nothing_left_behind(
    rest: dry.Rest, tmp_path: Path, free: int, threads: int
) -> None:
    found = dry.rate(replace(rest, free=free), threads)
    assert found is not None and found > 1e5
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_the_sample_fits_the_free_space(rest: dry.Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = shard.DirectFile.write

    def seen(self: Any, start: int, data: memoryview) -> None:
        written.append(len(data))
        write(self, start, data)

    monkeypatch.setattr(shard.DirectFile, "write", seen)
    assert dry.rate(replace(rest, free=9 << 20), 1)
    assert sum(written) <= 8 << 20
    assert dry.rate(replace(rest, free=1 << 20), 1) is None


@pytest.mark.parametrize("kept", [2, 4])
def test_a_run_that_goes_on_is_measured_too(rest: dry.Rest, kept: int) -> None:
    assert dry.rate(replace(rest, left=rest.left[kept:], kept=rest.left[:kept]), 1)


def test_a_disk_that_fills_up_is_not_measured(
    rest: dry.Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(shard.DirectFile, "write", full)
    assert dry.rate(rest, 1) is None


def test_a_folder_that_cannot_be_written_is_named(rest: dry.Rest, tmp_path: Path) -> None:
    class Elsewhere(dry.Rest):
        near = tmp_path / "none"

    gone = Elsewhere(**{name: getattr(rest, name) for name in rest.__dataclass_fields__})
    with pytest.raises(FileNotFoundError) as caught:
        dry.rate(gone, 1)
    assert caught.value.filename == str(tmp_path / "none")


def test_a_damaged_source_is_told(rest: dry.Rest) -> None:
    for path in rest.conversion.checkpoint.folder.glob("*.safetensors"):
        length = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        path.write_bytes(path.read_bytes()[:length] + b"\x7f" * (path.stat().st_size - length))
    with pytest.raises(ActionError, match="the source is damaged"):
        dry.rate(rest, 1)
