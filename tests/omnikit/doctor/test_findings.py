"""Findings put together, and as text."""

from __future__ import annotations

from omnikit.doctor.rules import (
    CERTAIN,
    LIKELY,
    POSSIBLE,
    UNKNOWN,
    Finding,
    as_data,
    as_text,
    known,
    merged,
)
from omnikit.fleet import causes


def test_equal_causes_are_one_with_all_their_evidence_the_surest_first() -> None:
    found = merged(
        [
            known("disk-full", LIKELY, "host a", "a: 20 MiB free"),
            known("kv-stuck", POSSIBLE, "p0 on a", "in use: 90 %"),
            known("disk-full", CERTAIN, "host b", "b: 0 MiB free"),
        ]
    )
    assert [one.name for one in found] == ["disk-full", "kv-stuck"]
    assert found[0].certainty == CERTAIN and found[0].on == ("host a", "host b")
    assert found[0].evidence == ("a: 20 MiB free", "b: 0 MiB free")


def test_unknown_ones_stay_apart() -> None:
    one = Finding("unknown", UNKNOWN, ("p0",), "?", ("x",), "y")
    other = Finding("unknown", UNKNOWN, ("p1",), "?", ("x",), "y")
    assert len(merged([one, other, one])) == 2


def test_the_text_has_evidence_and_what_to_do() -> None:
    many = known("no-space", LIKELY, "p0 on a", *(f"line {n}" for n in range(6)))
    text = as_text("2p1d", [many], ["a note"], {"hosts": 1, "servers": 3})
    assert text.startswith("2p1d: 1 finding (1 host, 3 servers)")
    assert f"1. likely: {causes.entry('no-space').cause}" in text
    assert "evidence: line 3" in text and "and 2 more of that kind" in text
    assert f"what to do: {causes.entry('no-space').remedy}" in text
    assert text.endswith("note: a note")


def test_nothing_found_is_said_too() -> None:
    assert as_text("x", [], [], {}) == "x: nothing wrong was found"
    assert as_data("x", [], [], {})["ok"] is True
