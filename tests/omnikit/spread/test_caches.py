"""Who gives what engines compiled, and what is said of it; tests/test_deploy_caches.py moves it."""

from __future__ import annotations

from typing import Any

from omnikit.spread.caches import Row, _with_giver, lines


def row(node: str, host: str, state: str, *ranks: int, **more: Any) -> Row:
    made = {"key": "k1", "dir": "/c/k1", "why": "", "bytes": 2048, "ranks": ranks, **more}
    return Row(node, host, state, **made)


def test_who_has_the_same_ranks_gives_before_others() -> None:
    rows = [row("d0", "a", "whole", 0, 1), row("d1", "b", "whole", 2, 3)]
    lacks = row("d3", "c", "none", 2, 3)
    assert _with_giver(lacks, [*rows, lacks]).giver == rows[1]
    moved = row("d3", "c", "refused", 4, 5, why="damaged")
    assert _with_giver(moved, [*rows, moved]).giver == rows[0]


def test_nobody_gives_another_key_or_what_is_there() -> None:
    there = row("p0", "a", "whole", 0)
    assert _with_giver(there, [there]).giver is None
    for other in (row("p1", "b", "none", 0, key="k2"), row("p1", "b", "unknown", 0, key="")):
        assert _with_giver(other, [there, other]).giver is None


def test_each_state_is_said() -> None:
    there = row("p0", "a", "whole", 0)
    rows = [there, _with_giver(row("p1", "b", "none", 0), [there])]
    rows += [row("p2", "c", "refused", 0, why="its key.json is damaged", key="k2")]
    rows += [row("p3", "d", "unknown", 0, why="npu-smi is not there", key="")]
    assert lines(rows) == [
        "p0 on a: cache k1 there, 2.0 KiB",
        "p1 on b: cache k1 not there; a gives it, 2.0 KiB",
        "p2 on c: cache k2 not used: its key.json is damaged; compiled at the start",
        "p3 on d: cache - unknown: npu-smi is not there",
    ]
