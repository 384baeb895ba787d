"""Faults of a fleet: the table that is published, and a part of it done for real.

All of it: make bench OPTIONS="--only reliability".
"""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import fault_stage
import faults
import pytest
from fault_stage import Stage, Traffic

DOCS = Path(__file__).resolve().parents[1] / "docs"
HOSTS = 7


def published(name: str) -> list[list[str]]:
    """The rows of the document's table of faults."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    heads = [list(one) for one in faults.HEADERS]
    begin = next(number for number, row in enumerate(cells) if row in heads)
    return [row for row in cells[begin + 2 :] if len(row) == len(heads[0])]


@pytest.mark.parametrize(("name", "chinese"), [("", False), (".zh-CN", True)])
def test_the_published_table_is_that_of_the_faults(name: str, chinese: bool) -> None:
    """Figures are measured by hand. Other rows: PYTHONPATH=scripts:tests/kit
    python3 benchmarks/bench_reliability.py --chinese
    """
    shown = [row[:4] for row in published(f"reliability{name}.md")]
    assert shown == [faults.row(one, chinese) for one in faults.TABLE]


def test_there_are_fifty_faults_of_all_kinds_and_the_short_form_has_some_of_each() -> None:
    names = [one.name for one in faults.TABLE]
    assert len(names) == len(set(names)) >= 50
    brief = [one for one in faults.TABLE if one.brief]
    for key in ("on", "back"):
        assert {getattr(one, key) for one in brief} == {getattr(one, key) for one in faults.TABLE}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with fault_stage.stage(HOSTS) as made:
        yield made


@pytest.mark.slow
@pytest.mark.needs("nginx", "lua", "iptables")
def test_states_causes_and_recovery_are_those_of_the_table(stage: Stage) -> None:
    traffic = Traffic(stage.proxy)
    try:
        found = [
            one
            for batch in stage.batches([one for one in faults.TABLE if one.brief])
            for one in fault_stage.perform(stage, batch, traffic, print)
        ]
    finally:
        traffic.end()
    assert {one.name: one.problems for one in found if one.problems} == {}
