"""Kinds of matrices, samples, and the numbers of e4m3."""

from __future__ import annotations

import numpy as np
import pytest
from omnikit.weights import small_deepseek as small
from omnikit.weights import verify_numbers, verify_plot


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.7.mlp.experts.12.up_proj.weight", "mlp.experts.up_proj"),
        ("model.layers.61.self_attn.q_a_proj.weight", "self_attn.q_a_proj"),
        ("lm_head.weight", "lm_head"),
        ("model.layers.3.mlp.gate.e_score_correction_bias", "mlp.gate"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert verify_numbers.kind_of(name) == kind


def test_both_definitions_of_e4m3_agree() -> None:
    found = verify_numbers.e4m3_values()
    assert np.array_equal(found, small.VALUES.astype(np.float64), equal_nan=True)
    assert np.isnan(found).sum() == 2 and np.nanmax(found) == 448


def test_a_sample_has_both_ends() -> None:
    assert verify_numbers.spread(range(100), 3) == [0, 50, 99]
    assert verify_numbers.spread([1, 2], 5) == verify_numbers.spread([1, 2], None) == [1, 2]


def test_a_picture_escapes_names_and_has_no_division_by_zero() -> None:
    kind = {"kind": "<a&b>", "max_error_steps": 0.0, "mean_error_steps": 0.0}
    picture = verify_plot.errors([kind], 0.0)
    assert "&lt;a&amp;b&gt;" in picture and "nan" not in picture
