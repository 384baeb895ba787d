"""The arithmetic of the conversion, compiled for this machine's vector units.

Source: blocks of e4m3 with one float32 scale each, value = float(e4m3) x scale (DeepSeek-V3's
README_WEIGHTS.md); or bf16. Target: int8 per row (output channel), scale = max |value| / 127
rounded to bf16, q = rint(value / scale). All in float32, with IEEE division and rounding to even,
so that every implementation of the same formula gives the same bits.
Engines keep scales in the model's dtype, bf16: a scale that does not change then has integers that
fit it. It is off by 2^-8 of itself at most, so that the largest value is at most 127.496 steps.
numpy alone has no FP8 and passes over memory once per operation: about twenty times slower.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.extending import intrinsic

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_F16, _F32 = ir.HalfType(), ir.FloatType()
# The smallest normal float32: below it, a scale has too few bits to divide by.
SMALLEST = np.float32(2.0**-126)
NAN_E4M3 = 127  # of the seven bits below the sign: the one pattern that is no number


def _has_half() -> bool:
    """Whether the processor turns half precision into single: x86 without F16C has no instruction
    for it, and numba no function. Of a processor that was named to numba nothing is supposed.
    """
    if config.CPU_NAME or config.CPU_FEATURES:
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return True
    try:
        return bool(binding.get_host_cpu_features().get("f16c"))
    except RuntimeError:  # a platform on which LLVM does not know how to ask
        return False


_HALF = _has_half()


def _c(number: int, kind: Any = _I32) -> Any:
    return ir.Constant(kind, number)


def _from_e4m3(b: Any, byte: Any) -> Any:
    """IEEE float32 of an e4m3fn byte: 4 bits of exponent with bias 7, 3 of mantissa."""
    return _by_half(b, byte) if _HALF else _by_integers(b, byte)


def _by_half(b: Any, byte: Any) -> Any:
    """Moved to the places of half precision, whose exponent has bias 15, it is the number / 2^8,
    exactly and without an exponent, too.
    """
    moved = b.shl(b.sext(byte, _I16), _c(7, _I16))
    half = b.bitcast(b.and_(moved, _c(0xBFFF, _I16)), _F16)
    return b.fmul(b.fpext(half, _F32), ir.Constant(_F32, 2.0**8))


def _by_integers(b: Any, byte: Any) -> Any:
    """Moved to float32's places, the exponent lacks 127 - 7. Without an exponent (subnormal), the
    value is mantissa / 8 x 2^-6: the number with exponent -6 and this mantissa, less 2^-6.
    """
    bits = b.zext(byte, _I32)
    moved = b.shl(b.and_(bits, _c(127)), _c(20))
    normal = b.bitcast(b.add(moved, _c(120 << 23)), _F32)
    raised = b.bitcast(b.add(moved, _c(121 << 23)), _F32)
    small = b.fsub(raised, ir.Constant(_F32, 2.0**-6))
    value = b.select(b.icmp_unsigned(">=", moved, _c(1 << 23)), normal, small)
    sign = b.shl(b.and_(bits, _c(128)), _c(24))
    return b.bitcast(b.or_(b.bitcast(value, _I32), sign), _F32)


def _bf16_bits(b: Any, value: Any) -> Any:
    """The nearest bf16, ties to even, in the low half of 32 bits."""
    bits = b.bitcast(value, _I32)
    odd = b.and_(b.lshr(bits, _c(16)), _c(1))
    return b.lshr(b.add(bits, b.add(odd, _c(0x7FFF))), _c(16))


def _from_bf16(b: Any, word: Any) -> Any:
    return b.bitcast(b.shl(b.zext(word, _I32), _c(16)), _F32)


def _rounded(b: Any, value: Any, scale: Any) -> Any:
    """rint(value / scale) as an 8-bit integer. |value| < 127.5 x scale."""
    rint = b.module.declare_intrinsic("llvm.rint", [_F32])
    return b.trunc(b.fptosi(b.call(rint, [b.fdiv(value, scale)]), _I32), _I8)


@intrinsic
def _int8_of_e4m3(context: Any, byte: Any, factor: Any, scale: Any) -> Any:
    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return _rounded(b, b.fmul(_from_e4m3(b, args[0]), args[1]), args[2])

    return types.int8(types.uint8, types.float32, types.float32), generate


@intrinsic
def _int8_of_bf16(context: Any, word: Any, scale: Any) -> Any:
    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return _rounded(b, _from_bf16(b, args[0]), args[1])

    return types.int8(types.uint16, types.float32), generate


@intrinsic
def _float_of_e4m3(context: Any, byte: Any) -> Any:
    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return _from_e4m3(b, args[0])

    return types.float32(types.uint8), generate


@intrinsic
def _bf16_of_e4m3(context: Any, byte: Any, factor: Any) -> Any:
    """The product rounded to the nearest bf16, ties to even."""

    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return b.trunc(_bf16_bits(b, b.fmul(_from_e4m3(b, args[0]), args[1])), _I16)

    return types.uint16(types.uint8, types.float32), generate


@intrinsic
def _rounded_to_bf16(context: Any, value: Any) -> Any:
    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return b.bitcast(b.shl(_bf16_bits(b, args[0]), _c(16)), _F32)

    return types.float32(types.float32), generate


def _jit(function: Any) -> Any:
    """Compiled at its first call, and kept for the next run where there is a place for it."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        # Neither beside this file nor in the home can anything be written (a read-only checkout of
        # another user): each run compiles anew, some seconds. A folder below /tmp is no place for
        # it: what another user puts there would be run.
        return njit(nogil=True, error_model="numpy")(function)


# Indices have no sign: only when none can be negative does the compiler use vector instructions.
# A slice for each block would do it, too, and cost more than the block's arithmetic.


@_jit
def _top_bytes(row: Any, size: Any, tops: Any) -> None:
    """The largest byte, without sign, of each block of a row. size: uint64."""
    columns = np.uint64(row.shape[0])
    for part in range(np.uint64(tops.shape[0])):
        low = part * size
        top = np.uint8(0)
        for j in range(low, min(columns, low + size)):
            top = max(top, np.uint8(row[j] & np.uint8(127)))
        tops[part] = top


@_jit
def _quantise_row(row: Any, size: Any, factor: Any, scale: Any, target: Any) -> None:
    columns = np.uint64(row.shape[0])
    for part in range(np.uint64(factor.shape[0])):
        low, by = part * size, factor[part]
        for j in range(low, min(columns, low + size)):
            target[j] = _int8_of_e4m3(row[j], by, scale)


@_jit
def _widen_row(row: Any, size: Any, factor: Any, target: Any) -> None:
    columns = np.uint64(row.shape[0])
    for part in range(np.uint64(factor.shape[0])):
        low, by = part * size, factor[part]
        for j in range(low, min(columns, low + size)):
            target[j] = _bf16_of_e4m3(row[j], by)


@_jit
def _top_word(row: Any) -> Any:
    top = np.uint16(0)
    for j in range(np.uint64(row.shape[0])):
        top = max(top, np.uint16(row[j] & np.uint16(0x7FFF)))
    return top


@_jit
def _quantise_words(row: Any, scale: Any, target: Any) -> None:
    for j in range(np.uint64(row.shape[0])):
        target[j] = _int8_of_bf16(row[j], scale)


@_jit
def _scale_of(largest: Any) -> Any:
    """Of a row with this largest value."""
    scale = np.float32(largest / np.float32(127))
    return np.float32(1) if scale < SMALLEST else _rounded_to_bf16(scale)


@_jit
def _largest(tops: Any, factor: Any) -> Any:
    """The largest number of a row, without sign; NaN where it holds one."""
    largest = np.float32(0)
    for part in range(factor.shape[0]):
        if tops[part] == NAN_E4M3:
            return np.float32(np.nan)
        largest = max(largest, np.float32(_float_of_e4m3(tops[part]) * factor[part]))
    return largest


@_jit
def quantise_fp8(
    source: Any, factors: Any, block: Any, first: int, target: Any, scales: Any
) -> int:
    """Rows of e4m3 to int8.

    source: uint8 [rows, columns]. factors: float32 [block rows, block columns] of the whole matrix.
    block: (rows, columns) of a block. first: the first row's number in the matrix.
    target: int8 [rows, columns]. scales: float32 [rows]. Both are written.
    Returns -1, or the row (from 0) that holds no finite number. A row with no value above
    127 x SMALLEST gets zeros and scale 1.
    """
    size, tops = np.uint64(block[1]), np.empty(factors.shape[1], np.uint8)
    for i in range(source.shape[0]):
        factor = factors[(first + i) // block[0]]
        _top_bytes(source[i], size, tops)
        largest = _largest(tops, factor)
        if not np.isfinite(largest):
            return i
        scale = _scale_of(largest)
        scales[i] = scale
        _quantise_row(source[i], size, factor, scale, target[i])
    return -1


@_jit
def quantise_bf16(source: Any, target: Any, scales: Any) -> int:
    """Rows of bf16 (uint16 [rows, columns]) to int8; returns as quantise_fp8, for what is not
    finite.
    """
    for i in range(source.shape[0]):
        top = _top_word(source[i])
        if top >= 0x7F80:
            return i
        scale = _scale_of(_word_value(top))
        scales[i] = scale
        _quantise_words(source[i], scale, target[i])
    return -1


@_jit
def widen_fp8(source: Any, factors: Any, block: Any, first: int, target: Any) -> int:
    """Rows of e4m3 to bf16 (uint16 [rows, columns]); arguments and result as of quantise_fp8."""
    size, tops = np.uint64(block[1]), np.empty(factors.shape[1], np.uint8)
    for i in range(source.shape[0]):
        factor = factors[(first + i) // block[0]]
        _top_bytes(source[i], size, tops)
        if not np.isfinite(_largest(tops, factor)):
            return i
        _widen_row(source[i], size, factor, target[i])
    return -1


@intrinsic
def _word_value(context: Any, word: Any) -> Any:
    def generate(_context: Any, b: Any, _signature: Any, args: Any) -> Any:
        return _from_bf16(b, args[0])

    return types.float32(types.uint16), generate


def warm(block: Any) -> bool:
    """Load or compile what a source with these blocks (None: bf16) needs, so that nobody waits for
    it later. Returns whether it was compiled and is kept: the next run does not wait for that.
    """
    scales, target = np.empty(1, np.float32), np.empty((1, 1), np.int8)
    words = np.zeros((1, 1), np.uint16)
    before = _compiled_and_kept()
    if block is None:
        quantise_bf16(words, target, scales)
    else:
        source, factors = np.zeros((1, 1), np.uint8), np.ones((1, 1), np.float32)
        quantise_fp8(source, factors, block, 0, target, scales)
        widen_fp8(source, factors, block, 0, words)
    return _compiled_and_kept() > before


def _compiled_and_kept() -> int:
    found = [one.stats for one in (quantise_fp8, quantise_bf16, widen_fp8)]
    return sum(sum(one.cache_misses.values()) for one in found if one.cache_path)
