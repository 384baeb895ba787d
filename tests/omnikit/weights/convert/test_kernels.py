"""The compiled arithmetic against numpy's, by the definition of the formats: the same bits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from omnikit.weights.convert import kernels
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow


def rows_of(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    made = random.integers(0, 256, (rows, columns), dtype=np.uint8)
    made[(made & 127) == 127] = 9  # no NaN
    return made


def expected(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scales = (np.abs(value).max(axis=1) / np.float32(127)).astype(np.float32)
    scales = np.where(scales < 2.0**-126, np.float32(1), small.from_bf16(small.bf16(scales)))
    return np.rint(value / scales[:, None]).astype(np.int8), scales


@given(
    seed=some.integers(0, 2**32 - 1),
    shape=some.tuples(some.integers(1, 300), some.integers(1, 300)),
    block=some.sampled_from([(128, 128), (64, 32), (1, 7), (500, 500)]),
    part=some.integers(1, 300),
    power=some.integers(-40, 20),
)
def test_fp8_in_parts_is_the_formula(
    seed: int, shape: tuple[int, int], block: tuple[int, int], part: int, power: int
) -> None:
    random = np.random.default_rng(seed)
    source = rows_of(random, *shape)
    source[random.integers(0, shape[0])] &= 128  # a row of zeros
    grid = [-(-size // side) for size, side in zip(shape, block)]
    factors = (random.random(grid, dtype=np.float32) + np.float32(1e-3)) * np.float32(2.0**power)
    value = small.widened(source, factors, block)
    target, scales = np.empty(shape, np.int8), np.empty(shape[0], np.float32)
    wide = np.empty(shape, np.uint16)
    for first in range(0, shape[0], part):
        some_rows = slice(first, first + part)
        given_ = (source[some_rows], factors, block, first)
        assert kernels.quantise_fp8(*given_, target[some_rows], scales[some_rows]) == -1
        assert kernels.widen_fp8(*given_, wide[some_rows]) == -1
    right, right_scales = expected(value)
    assert (scales == right_scales).all() and (target == right).all()
    assert (wide == small.bf16(value)).all()


def test_a_scale_survives_what_engines_make_of_it() -> None:
    """Engines keep scales in bf16. Integers that were computed for the scale before that cast are
    off by up to a step; those for the scale after it by half of one, and by 1.6 % less in all.
    """
    random = np.random.default_rng(3)
    words = small.bf16(random.normal(0, 1, (512, 2048)) * random.uniform(0.01, 2, (512, 1)))
    value = small.from_bf16(words).astype(np.float64)
    exact = (np.abs(value).max(axis=1) / 127).astype(np.float32)
    before = np.rint(value / exact[:, None]) * small.from_bf16(small.bf16(exact))[:, None]
    target, scales = np.empty(words.shape, np.int8), np.empty(512, np.float32)
    assert kernels.quantise_bf16(words, target, scales) == -1
    assert (small.from_bf16(small.bf16(scales)) == scales).all()  # the cast changes nothing
    after = target * scales[:, None].astype(np.float64)

    def error(made: np.ndarray) -> tuple[float, float]:
        relative = np.sqrt(((made - value) ** 2).sum() / (value**2).sum())
        return float(relative), float((np.abs(made - value) / exact[:, None]).max())

    (rms_before, most_before), (rms, most) = error(before), error(after)
    print(f"relative RMS {rms_before:.6f}, now {rms:.6f}; at most {most_before:.3f}, {most:.3f}")
    assert rms < 0.984 * rms_before and most_before > 0.9 and most < 0.503


def test_the_largest_value_never_becomes_128() -> None:
    """A scale that was rounded down to a power of two by all that rounding can: 127.496 steps."""
    source = np.tile(np.array([0x7E, 0xFE], np.uint8), (300, 1))  # 448 and -448
    factors = (127 / 448 * (1 + np.arange(300) / 65536)).astype(np.float32).reshape(-1, 1)
    target, scales = np.empty(source.shape, np.int8), np.empty(300, np.float32)
    assert kernels.quantise_fp8(source, factors, (1, 2), 0, target, scales) == -1
    assert (scales == 1).sum() > 250 and (target == [[127, -127]]).all()


def test_every_byte_is_the_number_that_e4m3fn_says() -> None:
    every = np.array([byte for byte in range(256) if byte & 127 != 127], np.uint8).reshape(1, -1)
    wide = np.empty(every.shape, np.uint16)
    factors = np.ones((1, 2), np.float32)
    kernels.widen_fp8(every, factors, (128, 128), 0, wide)
    assert (small.from_bf16(wide)[0] == small.VALUES[every[0]]).all()  # bf16 holds them exactly
    assert small.from_bf16(wide).max() == 448


def test_bf16_is_the_formula() -> None:
    random = np.random.default_rng(1)
    words = small.bf16(random.normal(0, 1, (37, 211)))
    words[5] = 0
    target, scales = np.empty(words.shape, np.int8), np.empty(37, np.float32)
    assert kernels.quantise_bf16(words, target, scales) == -1
    right, right_scales = expected(small.from_bf16(words))
    assert (target == right).all() and (scales == right_scales).all()
    assert scales[5] == 1 and not target[5].any()


@pytest.mark.parametrize("byte", [127, 255])
def test_a_nan_is_found_with_its_row(byte: int) -> None:
    source = np.ones((9, 300), np.uint8)
    source[6, 299] = byte
    factors = np.ones((1, 3), np.float32)
    out = np.empty(source.shape, np.int8), np.empty(9, np.float32)
    assert kernels.quantise_fp8(source, factors, (128, 128), 0, *out) == 6
    wide = np.empty(source.shape, np.uint16)
    assert kernels.widen_fp8(source, factors, (128, 128), 0, wide) == 6


def test_numbers_too_large_for_float32_are_found() -> None:
    source = np.full((2, 4), 0x7E, np.uint8)
    factors = np.array([[3e38]], np.float32)
    out = np.empty(source.shape, np.int8), np.empty(2, np.float32)
    assert kernels.quantise_fp8(source, factors, (128, 128), 0, *out) == 0
    words = np.array([[0x3F80, 0x7F80]], np.uint16)
    assert kernels.quantise_bf16(words, np.empty((1, 2), np.int8), np.empty(1, np.float32)) == 0


def test_it_is_compiled_once_by_whoever_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_compiled", None)
    begun = threading.Barrier(4)

    def first(_: int) -> object:
        begun.wait()
        return kernels.warm()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(first, range(4)))) == 1


def test_where_a_tensor_begins_at_any_byte_of_a_file() -> None:
    """Safetensors have no gaps: after a tensor of bytes, one of words is at an odd place."""
    random = np.random.default_rng(2)
    words = small.bf16(random.normal(0, 1, (5, 333)))
    file = np.frombuffer(bytearray(b"x" + words.tobytes()), np.uint8)
    odd = file[1:].view(np.uint16).reshape(words.shape)
    assert odd.ctypes.data % 2
    made = [(np.empty(words.shape, np.int8), np.empty(5, np.float32)) for _ in range(2)]
    for source, (target, scales) in zip((words, odd), made):
        assert kernels.quantise_bf16(source, target, scales) == -1
    assert (made[0][0] == made[1][0]).all() and (made[0][1] == made[1][1]).all()


_GENERIC = """
import sys, pytest
from llvmlite import binding
binding.get_host_cpu_name, binding.get_host_cpu_features = lambda: "generic", dict
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_a_processor_without_half_precision_gets_the_same_numbers() -> None:
    """The generic x86 has no F16C; only this way is the code for it run here."""
    assert not kernels._has_half({}) or platform.machine() != "x86_64"
    argv = ["-q", "-p", "no:cacheprovider", __file__, "-k", "formula or every_byte or nan"]
    env = {**os.environ, "PYTHONPATH": str(Path(kernels.__file__).parents[3])}
    words = [sys.executable, "-c", _GENERIC, *argv]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr


def test_what_does_not_fit_is_refused_before_memory_is_written() -> None:
    source, factors = np.zeros((4, 200), np.uint8), np.ones((1, 2), np.float32)
    target, scales = np.empty((4, 200), np.int8), np.empty(4, np.float32)
    kernels.quantise_fp8(source, factors, (128, 128), 0, target, scales)
    for wrong in (
        (source, factors[:, :1], (128, 128), 0, target, scales),
        (source, factors, (128, 128), 126, target, scales),
        (source, factors, (128, 128), 0, target[:3], scales),
        (source, factors, (128, 128), 0, target[:, :199], scales),
        (source, factors, (128, 128), 0, target, scales[:3]),
        (source, factors, (128, 128), 0, target.view(np.uint8), scales),
    ):
        with pytest.raises(ValueError, match="not"):
            kernels.quantise_fp8(*wrong)
