"""The picture of a verification."""

from __future__ import annotations

from pathlib import Path

from omnikit.weights.verify import verification


def test_a_picture_escapes_names_and_has_no_division_by_zero(tmp_path: Path) -> None:
    kind = {"kind": "<a&b>", "max_error_steps": 0.0, "mean_error_steps": 0.0}
    verification.draw(tmp_path / "x.svg", [kind], 0.0)
    picture = (tmp_path / "x.svg").read_text()
    assert "&lt;a&amp;b&gt;" in picture and "nan" not in picture
