"""A result that is not what its source gives does not get its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from omnikit.errors import ActionError
from omnikit.weights import checkpoint, convert_places, convert_plan, convert_rows, convert_run
from omnikit.weights import small_deepseek as small
from omnikit.weights.meter import Meter


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("check") / "source", shards=2)


def run(source: Path, target: Path, convert: Any = convert_rows.convert) -> dict[str, Any]:
    plan = convert_plan.plan(checkpoint.read(source))
    return convert_run.run(plan, target, 2, Meter(1, print), convert=convert)


def test_what_was_compared_is_kept(source: Path, tmp_path: Path) -> None:
    told = run(source, tmp_path / "target")["checked"]
    assert 0.4 < told["max_error_steps"] <= 0.5001
    assert told["matrices"] > 20 and told["values"] > 10_000


def _spoilt(to: int, place: int, size: int) -> None:
    """Turn over a bit of every byte that was written there."""
    with Path(f"/proc/self/fd/{to}").open("r+b", buffering=0) as file:
        data = np.frombuffer(os.pread(file.fileno(), size, place), np.uint8)
        os.pwrite(file.fileno(), (data ^ 0x40).tobytes(), place)


def _wrong_integers(rows: convert_rows.Rows, to: int) -> None:
    size = (rows.last - rows.first) * rows.piece.source.shape[1]
    _spoilt(to, rows.piece.start + rows.first * rows.piece.source.shape[1], size)


def _wrong_scales(rows: convert_rows.Rows, to: int) -> None:
    size = 4 * (rows.last - rows.first)
    _spoilt(to, rows.piece.scale_start + rows.first * 4, size)


def _wrong_copies(rows: convert_rows.Rows, to: int) -> None:
    _spoilt(to, rows.piece.start + rows.first, rows.last - rows.first)


@pytest.mark.parametrize(
    ("what", "spoil", "said"),
    [
        (convert_plan.QUANTISE, _wrong_integers, "steps, at most 0.5000 expected: model.layers"),
        (convert_plan.QUANTISE, _wrong_scales, "model.layers"),
        (convert_plan.COPY, _wrong_copies, "not equal to the source"),
    ],
)
def test_a_machine_that_computes_or_writes_wrong_is_found_out(
    source: Path,
    tmp_path: Path,
    what: str,
    spoil: Callable[[convert_rows.Rows, int], None],
    said: str,
) -> None:
    def convert(rows: convert_rows.Rows, block: Any, scales: Any, of: int, to: int) -> None:
        convert_rows.convert(rows, block, scales, of, to)
        if rows.piece.what == what:
            spoil(rows, to)

    target = tmp_path / "target"
    with pytest.raises(ActionError, match=f"is not what the source gives: .*{said}") as caught:
        run(source, target, convert)
    assert not target.exists()
    assert f"rm -r {convert_places.work_folder(target)}" in str(caught.value.todo)
