"""Device lists, and the words for every pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnikit.yaml.setting_types import IN_WORDS, parse_devices


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", ()), ("0", (0,)), ("0-3,8", (0, 1, 2, 3, 8)), ("5-5", (5,)), ("3,1", (3, 1))],
)
def test_devices_are_ids_and_ranges(text: str, ids: tuple[int, ...]) -> None:
    assert parse_devices(text) == ids


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "neither a device id nor a range"),
        ("0, 1", "neither"),
        ("-1", "neither"),
        ("0-", "neither"),
        ("99999", "neither"),
        ("0,,1", "neither"),
        ("٣", "neither"),
        ("3-1", "does not count upwards"),
        ("0-3,2", "stands twice"),
    ],
)
def test_malformed_devices_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_devices(text)


@given(st.lists(st.integers(0, 9999), unique=True, max_size=20))
def test_a_list_of_ids_comes_back_as_given(ids: list[int]) -> None:
    assert parse_devices(",".join(map(str, ids))) == tuple(ids)


def test_no_error_ever_shows_a_regular_expression() -> None:
    assert all(set("^$[]") & set(pattern) for pattern in IN_WORDS)
    assert not any(set("^$[]{}\\") & set(words) for words in IN_WORDS.values())
