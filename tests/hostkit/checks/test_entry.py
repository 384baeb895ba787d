"""Entries: their state follows from the check and from whether it is required."""

from __future__ import annotations

import pytest

from hostkit.checks.base import entry, is_fatal


@pytest.mark.parametrize(
    ("ok", "required", "state", "fatal"),
    [
        (True, True, "ok", False),
        (True, False, "ok", False),
        (False, True, "failed", True),
        (False, False, "warning", False),
    ],
)
def test_only_a_failed_required_check_is_fatal(
    ok: bool, required: bool, state: str, fatal: bool
) -> None:
    made = entry("a", "A", ok, required=required, found="f", needed="n", todo="do it")
    assert (made["state"], is_fatal(made)) == (state, fatal)
    assert made["todo"] == ("" if ok else "do it")
