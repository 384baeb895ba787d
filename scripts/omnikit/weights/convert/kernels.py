"""The arithmetic of the conversion, compiled for this machine's vector units.

Source: blocks of e4m3 with one float32 scale each, value = float(e4m3) x scale (DeepSeek-V3's
README_WEIGHTS.md); or bf16. Target: int8 per row (output channel), scale = max |value| / 127
rounded to bf16, q = rint(value / scale). All in float32, with IEEE division and rounding to even,
so that every implementation of the same formula gives the same bits.
Engines keep scales in the model's dtype, bf16: a scale that does not change then has integers that
fit it. It is off by 2^-8 of itself at most, so that the largest value is at most 127.496 steps.
numpy alone has no FP8 and passes over memory once per operation: about twenty times slower.

Written for LLVM itself (llvmlite), which compiles it anew in each process, in less time than numba
takes to be imported and to find what it has kept.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Sequence

from llvmlite import binding, ir

_BIT, _I8, _I16, _I32, _I64 = (ir.IntType(size) for size in (1, 8, 16, 32, 64))
_F16, _F32 = ir.HalfType(), ir.FloatType()
# The smallest normal float32: below it, a scale has too few bits to divide by.
SMALLEST = 2.0**-126
NAN_E4M3 = 127  # of the seven bits below the sign: the one pattern that is no number
_INFINITE_BF16 = 0x7F80  # of the fifteen: from here on none is finite
_WORDS = (ctypes.c_void_p, ctypes.c_int64)  # arguments: where an array is, or a number


def _c(number: float, kind: Any = _I32) -> Any:
    return ir.Constant(kind, number)


# Of one number. b: where instructions are put. half: see _has_half.


def _from_e4m3(b: Any, byte: Any, half: bool) -> Any:
    """IEEE float32 of an e4m3fn byte: 4 bits of exponent with bias 7, 3 of mantissa."""
    return _by_half(b, byte) if half else _by_integers(b, byte)


def _by_half(b: Any, byte: Any) -> Any:
    """Moved to the places of half precision, whose exponent has bias 15, it is the number / 2^8,
    exactly and without an exponent, too.
    """
    moved = b.shl(b.sext(byte, _I16), _c(7, _I16))
    half = b.bitcast(b.and_(moved, _c(0xBFFF, _I16)), _F16)
    return b.fmul(b.fpext(half, _F32), _c(2.0**8, _F32))


def _by_integers(b: Any, byte: Any) -> Any:
    """Moved to float32's places, the exponent lacks 127 - 7. Without an exponent (subnormal), the
    value is mantissa / 8 x 2^-6: the number with exponent -6 and this mantissa, less 2^-6.
    """
    bits = b.zext(byte, _I32)
    moved = b.shl(b.and_(bits, _c(127)), _c(20))
    normal = b.bitcast(b.add(moved, _c(120 << 23)), _F32)
    raised = b.bitcast(b.add(moved, _c(121 << 23)), _F32)
    small = b.fsub(raised, _c(2.0**-6, _F32))
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


def _scale_of(b: Any, largest: Any) -> Any:
    """Of a row with this largest value."""
    scale = b.fdiv(largest, _c(127.0, _F32))
    rounded = b.bitcast(b.shl(_bf16_bits(b, scale), _c(16)), _F32)
    return b.select(b.fcmp_ordered("<", scale, _c(SMALLEST, _F32)), _c(1.0, _F32), rounded)


# Of rows and blocks.


def _at(b: Any, array: Any, *where: Any) -> Any:
    """The place of an element: the sum of where."""
    for index in where:
        array = b.gep(array, [index], inbounds=True)
    return array


def _get(b: Any, array: Any, *where: Any) -> Any:
    return b.load(_at(b, array, *where), align=1)  # a tensor may begin at any byte of a file


def _put(b: Any, value: Any, array: Any, *where: Any) -> None:
    b.store(value, _at(b, array, *where), align=1)


def _smaller(b: Any, one: Any, other: Any) -> Any:
    return b.select(b.icmp_signed("<", one, other), one, other)


@contextmanager
def _each(b: Any, low: Any, high: Any) -> Iterator[Any]:
    """A loop over low to high (excluded); its index."""
    head, body, end = (b.append_basic_block(name) for name in ("head", "body", "end"))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(_I64)
    index.add_incoming(low, before)
    b.cbranch(b.icmp_signed("<", index, high), body, end)
    b.position_at_end(body)
    yield index
    index.add_incoming(b.add(index, _c(1, _I64), flags=("nsw", "nuw")), b.block)
    b.branch(head)
    b.position_at_end(end)


@contextmanager
def _blocks(b: Any, columns: Any, width: Any, parts: Any) -> Iterator[tuple[Any, Any, Any]]:
    """A loop over the blocks of a row: number, first and last column (excluded)."""
    with _each(b, _c(0, _I64), parts) as part:
        low = b.mul(part, width, flags=("nsw", "nuw"))
        high = b.add(low, width, flags=("nsw", "nuw"))
        yield part, low, _smaller(b, columns, high)


def _return_unless(b: Any, good: Any, value: Any) -> None:
    with b.if_then(b.not_(good), likely=False):
        b.ret(value)


def _is_finite(b: Any, value: Any) -> Any:
    """No NaN, and not infinite; value >= 0 or NaN."""
    return b.fcmp_ordered("<", value, _c(float("inf"), _F32))


def _top(b: Any, kept: Any, row: Any, low: Any, high: Any, mask: int) -> Any:
    """The largest of row[low:high], without sign. kept: a place for it."""
    kind = kept.type.pointee
    b.store(_c(0, kind), kept)
    with _each(b, low, high) as j:
        one = b.and_(_get(b, row, j), _c(mask, kind))
        top = b.load(kept)
        b.store(b.select(b.icmp_unsigned(">", one, top), one, top), kept)
    return b.load(kept)


def _largest(
    b: Any, half: bool, kept: tuple[Any, Any], row: Any, factor: Any, of: Any, i: Any
) -> Any:
    """The largest number of row i of e4m3, without sign. Returns i where it is not finite. of: what
    _blocks takes.
    """
    byte, largest = kept
    b.store(_c(0.0, _F32), largest)
    with _blocks(b, *of) as (part, low, high):
        top = _top(b, byte, row, low, high, 127)
        _return_unless(b, b.icmp_unsigned("!=", top, _c(NAN_E4M3, _I8)), i)
        value = b.fmul(_from_e4m3(b, top, half), _get(b, factor, part))
        before = b.load(largest)
        b.store(b.select(b.fcmp_ordered(">", value, before), value, before), largest)
    found = b.load(largest)
    _return_unless(b, _is_finite(b, found), i)
    return found


def _fp8(module: Any, half: bool, name: str, element: Any, scaled: bool) -> None:
    """Rows of e4m3 to element; scaled: to int8, with their scales, else to bf16."""
    arrays = [_I8, _F32, element, *([_F32] if scaled else [])]
    b, given = _function(module, name, arrays, 6)
    source, factors, target = given[:3]
    rows, columns, parts, height, width, first = given[-6:]
    kept = b.alloca(_I8), b.alloca(_F32)
    with _each(b, _c(0, _I64), rows) as i:
        at = b.mul(i, columns)
        row, into = _at(b, source, at), _at(b, target, at)
        factor = _at(b, factors, b.mul(b.sdiv(b.add(first, i), height), parts))
        largest = _largest(b, half, kept, row, factor, (columns, width, parts), i)
        if scaled:
            scale = _scale_of(b, largest)
            _put(b, scale, given[3], i)
        with _blocks(b, columns, width, parts) as (part, low, high):
            by = _get(b, factor, part)
            with _each(b, low, high) as j:
                value = b.fmul(_from_e4m3(b, _get(b, row, j), half), by)
                made = _rounded(b, value, scale) if scaled else b.trunc(_bf16_bits(b, value), _I16)
                _put(b, made, into, j)
    b.ret(_c(-1, _I64))


def _bf16(module: Any, name: str) -> None:
    """Rows of bf16 to int8."""
    b, (source, target, scales, rows, columns) = _function(module, name, [_I16, _I8, _F32], 2)
    kept = b.alloca(_I16)
    with _each(b, _c(0, _I64), rows) as i:
        at = b.mul(i, columns)
        row, into = _at(b, source, at), _at(b, target, at)
        top = _top(b, kept, row, _c(0, _I64), columns, 0x7FFF)
        _return_unless(b, b.icmp_unsigned("<", top, _c(_INFINITE_BF16, _I16)), i)
        scale = _scale_of(b, _from_bf16(b, top))
        _put(b, scale, scales, i)
        with _each(b, _c(0, _I64), columns) as j:
            _put(b, _rounded(b, _from_bf16(b, _get(b, row, j)), scale), into, j)
    b.ret(_c(-1, _I64))


def _function(module: Any, name: str, arrays: Sequence[Any], numbers: int) -> tuple[Any, list[Any]]:
    """A new function of arrays, none of which overlaps another, and numbers."""
    kinds = [*(kind.as_pointer() for kind in arrays), *[_I64] * numbers]
    made = ir.Function(module, ir.FunctionType(_I64, kinds), name)
    for argument in made.args[: len(arrays)]:
        argument.add_attribute("noalias")
    return ir.IRBuilder(made.append_basic_block("entry")), list(made.args)


def _has_half(features: dict[str, bool]) -> bool:
    """Whether the processor turns half precision into single: x86 without F16C has no instruction
    for it, and LLVM calls a function that is not there.
    """
    return platform.machine() in ("aarch64", "arm64") or bool(features.get("f16c"))


def _processor() -> tuple[str, dict[str, bool]]:
    """What LLVM calls this machine's, and what that has."""
    try:
        return binding.get_host_cpu_name(), dict(binding.get_host_cpu_features())
    except RuntimeError:  # a platform on which LLVM does not know how to ask
        return binding.get_host_cpu_name(), {}


class _Compiled:
    """The functions, as this processor runs them. Called without Python's lock."""

    def __init__(self) -> None:
        cpu, features = _processor()
        half = _has_half(features)
        module = ir.Module("kernels")
        module.triple = binding.get_process_triple()
        _fp8(module, half, "quantise_fp8", _I8, True)
        _fp8(module, half, "widen_fp8", _I16, False)
        _bf16(module, "quantise_bf16")
        binding.initialize()
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        has = ",".join(f"{'+' if there else '-'}{one}" for one, there in sorted(features.items()))
        target = binding.Target.from_triple(module.triple)
        machine = target.create_target_machine(cpu=cpu, features=has, opt=3, jit=True)
        code = binding.parse_assembly(str(module))
        tuning = binding.create_pipeline_tuning_options(speed_level=3)
        passes = binding.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(code, passes)
        self.engine = binding.create_mcjit_compiler(code, machine)  # has the code in its memory
        self.engine.finalize_object()
        pointer, number = _WORDS
        self.quantise_fp8 = self._found("quantise_fp8", *[pointer] * 4, *[number] * 6)
        self.widen_fp8 = self._found("widen_fp8", *[pointer] * 3, *[number] * 6)
        self.quantise_bf16 = self._found("quantise_bf16", *[pointer] * 3, *[number] * 2)

    def _found(self, name: str, *kinds: Any) -> Callable[..., int]:
        made = ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)
        return made(self.engine.get_function_address(name))


_compiling = threading.Lock()
_compiled: Optional[_Compiled] = None


def warm() -> _Compiled:
    """Compile it if that is not done yet: so that nobody waits for it later."""
    global _compiled
    with _compiling:
        if _compiled is None:
            _compiled = _Compiled()
        return _compiled


def _place(array: Any, dtype: str, shape: Any) -> int:
    """Where the numbers of an array are, one after the other."""
    if array.dtype != dtype or array.shape != tuple(shape) or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype} {array.shape} {array.strides}, not {dtype} {shape}")
    return int(array.ctypes.data)


def _fp8_places(source: Any, factors: Any, block: Any, first: int) -> tuple[int, int]:
    rows, columns = source.shape
    if factors.shape[0] * block[0] < first + rows or factors.shape[1] * block[1] < columns:
        raise ValueError(f"{factors.shape} blocks of {block}, not of {first + rows} x {columns}")
    return _place(source, "u1", source.shape), _place(factors, "f4", factors.shape)


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
    arrays = (*_fp8_places(source, factors, block, first), _place(target, "i1", source.shape))
    sizes = (*source.shape, factors.shape[1], *block, first)
    return warm().quantise_fp8(*arrays, _place(scales, "f4", source.shape[:1]), *sizes)


def quantise_bf16(source: Any, target: Any, scales: Any) -> int:
    """Rows of bf16 (uint16 [rows, columns]) to int8; returns as quantise_fp8, for what is not
    finite.
    """
    target_, scales_ = _place(target, "i1", source.shape), _place(scales, "f4", source.shape[:1])
    arrays = (_place(source, "u2", source.shape), target_, scales_)
    return warm().quantise_bf16(*arrays, *source.shape)


def widen_fp8(source: Any, factors: Any, block: Any, first: int, target: Any) -> int:
    """Rows of e4m3 to bf16 (uint16 [rows, columns]); arguments and result as of quantise_fp8."""
    arrays = (*_fp8_places(source, factors, block, first), _place(target, "u2", source.shape))
    return warm().widen_fp8(*arrays, *source.shape, factors.shape[1], *block, first)
