"""The estimate: what is added up, and what it measures with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from omnikit.weights import (
    checkpoint,
    convert_actions,
    convert_estimate,
    convert_layout,
    convert_plan,
    kernels,
)
from omnikit.weights import small_deepseek as small

RATES = ("read", "compute", "hash", "write", "read_busy", "write_busy")


@pytest.fixture
def rest(tmp_path: Path) -> convert_actions.Rest:
    source = small.make().write(tmp_path / "source", shards=4)
    plan = convert_plan.plan(checkpoint.read(source))
    return convert_actions.look(plan, tmp_path / "target")


def test_the_parts_are_added_up(
    rest: convert_actions.Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_estimate.os, "sched_getaffinity", lambda _: {0, 1})
    endless = dict.fromkeys(RATES, 1e30)
    made = rest.conversion.size
    other = sum(path.stat().st_size for path in rest.others)
    expected = {
        "read": rest.source_bytes,
        "write": made,
        "read_busy": rest.source_bytes / 2,  # on two processors
        "write_busy": made / 2,
        "compute": sum(
            piece.source.size
            for shard in rest.left
            for piece in shard.pieces
            if piece.what != convert_layout.COPY
        ),
        # Of the files that are copied on one thread of two: half the rate.
        "hash": made + 2 * other,
    }
    for what, count in expected.items():
        found = convert_estimate.seconds(rest, {**endless, what: 1e6}, 2, start=3)
        assert found == pytest.approx(3 + count / 1e6), what
    both = convert_estimate.seconds(rest, {**endless, "read": 1e6, "write": 1e6}, 2, start=0)
    assert both == pytest.approx((rest.source_bytes + made) / 1e6)  # of one disk


def test_files_of_an_earlier_run_are_only_hashed(rest: convert_actions.Rest) -> None:
    kept = replace(rest, left=rest.left[2:], kept=rest.left[:2])
    slow = {**dict.fromkeys(RATES, 1e30), "compute": 1e6, "write": 1e6}
    whole, rest_only = (convert_estimate.seconds(one, slow, 1, 0) for one in (rest, kept))
    assert rest_only < whole


def test_the_sample_fits_the_free_space(
    rest: convert_actions.Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(_: Path, sample: int) -> tuple[float, float]:
        written.append(sample >> 20)
        return 1e9, 1e9

    monkeypatch.setattr(convert_estimate, "_write", write)
    for free in (1 << 40, 9 << 20):
        found = convert_estimate.measure(replace(rest, free=free), kernels, 1)
        assert found is not None and min(found.values()) > 1e5
    assert written == [64, 4]
    assert convert_estimate.measure(replace(rest, free=1 << 20), kernels, 1) is None


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    assert min(convert_estimate._write(tmp_path, 1 << 20)) > 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError) as caught:
        convert_estimate._write(tmp_path / "none", 1 << 20)
    assert caught.value.filename == str(tmp_path / "none")
