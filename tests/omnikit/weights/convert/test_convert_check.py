"""A result that is not what its source gives does not get its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from hostkit.base.errors import ActionError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import records as convert_records
from omnikit.weights.convert import run as convert_run
from omnikit.weights.convert import shard as convert_shard
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("check") / "source", shards=2)


def run(source: Path, target: Path, convert: Any = convert_shard.convert) -> dict[str, Any]:
    plan = w8a8.plan(headers.read(source))
    return convert_run.run(plan, target, 2, Meter(1, print), convert=convert)


def test_what_was_compared_is_kept(source: Path, tmp_path: Path) -> None:
    told = run(source, tmp_path / "target")["checked"]
    assert 0.4 < told["max_error_steps"] <= 0.5001
    assert told["matrices"] > 20 and told["values"] > 10_000


def _wrong_data(made: convert_shard.Made) -> None:
    """A bit of every byte turned over."""
    data = np.frombuffer(made.data, np.uint8)
    data ^= 0x40


def _wrong_scales(made: convert_shard.Made) -> None:
    made.scales.view(np.uint32)[:] ^= 0x40404040


@pytest.mark.parametrize(
    ("what", "spoil", "said"),
    [
        (w8a8.QUANTISE, _wrong_data, "steps, at most 0.5000 expected: model.layers"),
        (w8a8.QUANTISE, _wrong_scales, "model.layers"),
        (w8a8.COPY, _wrong_data, "not equal to the source"),
    ],
)
def test_a_machine_that_computes_or_writes_wrong_is_found_out(
    source: Path,
    tmp_path: Path,
    what: str,
    spoil: Callable[[convert_shard.Made], None],
    said: str,
) -> None:
    def convert(rows: convert_shard.Rows, *given: Any) -> convert_shard.Made:
        made = convert_shard.convert(rows, *given)
        if rows.piece.what == what:
            spoil(made)
        return made

    target = tmp_path / "target"
    with pytest.raises(ActionError, match=f"is not what the source gives: .*{said}") as caught:
        run(source, target, convert)
    assert not target.exists()
    assert f"rm -r {convert_records.work_folder(target)}" in str(caught.value.todo)
