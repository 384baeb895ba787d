"""Cells and the classes of what stands in them."""

from __future__ import annotations

import pytest

from omnikit.report.page import Section, cell, mood
from omnikit.report.words import Words


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ("", "–"), ("-", "–"), (0, "0"), (1234.56, "1234.6"), (0.0421, "0.0421")],
)
def test_values_as_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_states_and_times_have_classes() -> None:
    words = ("ready", "failed", "warning", "2026-11-24T00:00:00Z", "–", "p0")
    assert [mood(word) for word in words] == ["good", "bad", "warn", "time", "none", ""]


def test_wide_and_long_tables_are_marked_for_small_screens() -> None:
    made = Section("x", "State", Words("en"))
    made.table(["1", "2"], [[1, 2]], "1")
    made.table(list("123456"), [])
    made.table(["1"], [], long=True)
    assert [block["style"] for block in made.blocks] == ["plain", "wide", "long"]
    assert made.blocks[0]["right"] == {1} and made.blocks[0]["rows"] == [["1", "2"]]
