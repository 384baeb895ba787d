"""The picture of a verification."""

from __future__ import annotations

from omnikit.weights import verify_plot


def test_a_picture_escapes_names_and_has_no_division_by_zero() -> None:
    kind = {"kind": "<a&b>", "max_error_steps": 0.0, "mean_error_steps": 0.0}
    picture = verify_plot.errors([kind], 0.0)
    assert "&lt;a&amp;b&gt;" in picture and "nan" not in picture
