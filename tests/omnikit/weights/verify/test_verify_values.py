"""What bytes mean, and the scales that follow from them."""

from __future__ import annotations

import numpy as np

from omnikit.weights.checkpoint.headers import Tensor
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.verify import numbers as verify_numbers


def test_both_definitions_of_e4m3_agree() -> None:
    found = verify_numbers.e4m3_values()
    assert np.array_equal(found, small.VALUES.astype(np.float64), equal_nan=True)
    assert np.isnan(found).sum() == 2 and np.nanmax(found) == 448


def test_the_largest_of_a_row_is_that_of_its_values() -> None:
    """Computed from bytes in order, for partial blocks too; NaN stays."""
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (70, 90), dtype=np.uint8)
    data[data & 127 == 127] = 0
    factors = random.uniform(0.1, 9, (3, 3)).astype(np.float32)
    tensor, rows = Tensor("a", "F8_E4M3", (70, 90), "f", 0, 6300), np.arange(70)
    found = verify_numbers.largest(tensor, data, factors, (32, 32), rows)
    values = verify_numbers.values(tensor, data, factors, (32, 32), rows)
    assert np.array_equal(found, np.abs(values).max(axis=1))
    data[3, 4] = 255
    assert np.isnan(verify_numbers.largest(tensor, data, factors, (32, 32), rows)[3])
    words = small.bf16(random.normal(0, 1, (5, 7)))
    bf16 = Tensor("b", "BF16", (5, 7), "f", 0, 70)
    tops = verify_numbers.largest(bf16, words, None, None, np.arange(5))
    assert np.array_equal(tops, np.abs(small.from_bf16(words)).max(axis=1))


def test_a_row_without_values_has_scale_1() -> None:
    assert verify_numbers.row_scales(np.array([0, 2.0**-127, 254.0])).tolist() == [1, 1, 2]
