"""How far converted numbers are from those that they came from, for each kind of matrix.

What is right, whoever made it: each row's scale is one that a formula gives for the source's row
(its largest value / 127, or / 127.5 where integers go down to -128; as float32, or rounded to
bf16), and each integer is the nearest of -128 to 127 for that scale. So the values are as near to
the source as float32 scales allow: half a step, or what the largest value is beyond 127. A scale
that no formula gives is never believed: beside it destroyed integers would look fine, and errors
are then told in steps of the scale that the row should have.

Formats that keep scales in 16 bits cannot say the exact scale, and tools that write them compute
in 16 bits besides: two steps are good there (half for rounding, half each for the value and the
scale in bf16, a quarter for their quotient, a quarter for what is beyond 127), and one and a half
for msmodelslim, which opens FP8 to bf16 first. Integers that are not the nearest are counted
everywhere, and it is tried whether a step in bf16 on the way gives just these (FP8 to bf16, then to
int8): then it is said, with the error that it cost.

What bytes mean is read independently of the conversion: numpy, float64, and the numbers of e4m3
from its definition.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence

import numpy as np

from omnikit.weights.checkpoint.headers import SIZES, Checkpoint, Tensor
from omnikit.weights.checkpoint.w8a8 import COPY, OFFSET, SCALE, Conversion, Piece
from omnikit.weights.meter import Meter

_DTYPES: dict[str, Any] = {"F32": np.float32, "I8": np.int8, "F16": np.float16}
# The largest integer of a row stands for its largest value; compressed-tensors divides by 127.5.
_LEVELS, _ALL_LEVELS = 127.0, (127.0, 127.5)
# Of a row of zeros, which has no scale: compressed-tensors has the epsilon of the scales' dtype.
_OF_ZEROS = [2.0**-23, 2.0**-10, 2.0**-7]
_SMALLEST = 2.0**-126  # of float32: a smaller scale has too few bits to divide by
_PART = 4 << 20  # elements that are compared at once
# The native arithmetic is float32: a value of up to 127 steps is off by two roundings of 2^-24, and
# so is the step itself.
_FLOAT32 = 2 * 2.0**-24
_HALF = 0.5 + 127.5 * _FLOAT32  # of a step: what the nearest integer is off by
_NATIVE_SCALE = 1e-6
_IN_16_BITS = 2.0  # steps
# Of the integers that are not the nearest: so many as bf16 gives them are no chance.
_SURELY = 0.95
# One rounding to a dtype: half of the last bit.
_ROUNDING = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 0.0}


def e4m3_values() -> Any:
    """float64 [256]: sign, 4 bits of exponent with bias 7, 3 of mantissa; the last is NaN."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7.0)
    value = np.where(exponent > 0, normal, mantissa / 8 * 2.0**-6)
    value = np.where((byte & 127) == 127, np.nan, value)
    return np.where(byte & 128, -value, value)


_E4M3 = e4m3_values()


def open_tensor(folder: Checkpoint, tensor: Tensor) -> Any:
    """Its bytes in the file, as numbers where numpy has such, else as unsigned integers."""
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
    dtype = _DTYPES.get(tensor.dtype) or unsigned[SIZES[tensor.dtype]]
    if not tensor.size:  # nothing can be mapped
        return np.zeros(tensor.shape, dtype)
    path = folder.folder / tensor.file
    return np.memmap(path, dtype=dtype, mode="r", offset=tensor.start, shape=tensor.shape or (1,))


def _ask_for(folder: Checkpoint, tensor: Tensor, rows: Any) -> None:
    """Have the disk read these rows while others are waited for: a mapping asks for each when its
    first byte is looked at, and one after the other a few rows take as long as a file.
    """
    size = tensor.size // max(1, tensor.shape[0])
    with (folder.folder / tensor.file).open("rb", buffering=0) as file:
        for row in rows:
            place = tensor.start + int(row) * size
            os.posix_fadvise(file.fileno(), place, size, os.POSIX_FADV_WILLNEED)


def floats(dtype: str, data: Any) -> Any:
    """Numbers of a dtype that needs no block scales: float64."""
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.astype(np.float64)


def values(tensor: Tensor, data: Any, scales: Any, block: Any, rows: Any) -> Any:
    """What the source's data of some rows mean: float64, of the same shape."""
    if tensor.dtype == "F8_E4M3":
        wide = scales[rows // block[0]].repeat(block[1], axis=1)
        return _E4M3[data] * wide[:, : data.shape[1]]
    return floats(tensor.dtype, data)


def largest(tensor: Tensor, data: Any, scales: Any, block: Any, rows: Any) -> Any:
    """The largest absolute value of each row: float64 [rows]. Not finite where one is not.

    Without the sign, bytes of e4m3 and words of bf16 are in the order of what they stand for: no
    value but the largest is computed.
    """
    if tensor.dtype == "F8_E4M3":
        starts = np.arange(0, data.shape[1], block[1])
        tops = np.maximum.reduceat(data & 127, starts, axis=1)
        return (_E4M3[tops] * np.abs(scales)[rows // block[0]]).max(axis=1)
    if tensor.dtype == "BF16":
        return floats("BF16", (data & 0x7FFF).max(axis=1))
    return np.abs(floats(tensor.dtype, data)).max(axis=1)


def row_scales(tops: Any, levels: float = _LEVELS) -> Any:
    """What the formula gives for rows with these largest values: float64 [rows]."""
    wanted = tops / levels
    return np.where(wanted < _SMALLEST, 1.0, wanted)


def from_bf16(words: Any) -> Any:
    """float64 of uint16."""
    return floats("BF16", words)


def to_bf16(value: Any) -> Any:
    """Nearest, ties to even, as uint16; by way of float32, as every implementation does."""
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def one_by_one(scale: Optional[Tensor], matrix: Tensor) -> bool:
    """Whether a tensor can be the scale, or offset, of each row of a matrix."""
    known = ("F32", "BF16", "F16")
    return scale is not None and scale.dtype in known and scale.shape == (matrix.shape[0], 1)


@dataclass(frozen=True)
class Limits:
    """scale: relative difference from what a formula gives. steps: error of a value. nearest: the
    format can hold the exact scale, so that integers must be the nearest for it.
    """

    scale: float
    steps: float
    nearest: bool = False

    @classmethod
    def of(cls, slim: bool, source_dtype: str, scale_dtype: str) -> Limits:
        """slim: msmodelslim made it, which opens FP8 to bf16 before it quantises, and may keep its
        scales in 16 bits: either moves a value of 127 steps by a part of itself.
        """
        values = _ROUNDING["BF16"] if source_dtype == "F8_E4M3" else 0.0
        off = (1 + values) * (1 + _ROUNDING[scale_dtype]) * (1 + _NATIVE_SCALE) - 1
        if slim:
            return cls(off, 0.5 + 127.5 * off)
        if scale_dtype == "F32":
            return cls(_NATIVE_SCALE, _HALF, nearest=True)
        return cls((1 + off) * _ALL_LEVELS[1] / _LEVELS - 1, _IN_16_BITS)

    def good(self, found: Any, tops: Any) -> Any:
        """Which scales of rows with these largest values are what they may be; never one that is
        not finite.
        """
        if not self.nearest:
            wanted = row_scales(tops)
            return np.abs(found - wanted) <= self.scale * wanted
        good = np.zeros(found.shape, bool)
        for wanted in (row_scales(tops, levels) for levels in _ALL_LEVELS):
            # The largest value may be off by a rounding before: at most one bf16 lies between.
            ends = [from_bf16(to_bf16(wanted * (1 + off))) for off in (-self.scale, self.scale)]
            good |= np.abs(found - wanted) <= self.scale * wanted
            good |= (found == ends[0]) | (found == ends[1])
        return good


@dataclass
class Kind:
    """All matrices of one kind, for example mlp.experts.up_proj; errors in steps.

    integers: those of the values that int8 stands for. scales: of rows, compared; wrong_scales of
    these are not what the formula gives, the first is wrong_scale. bound: of errors, 0 where no
    int8 stands for the values. different: where what must be equal is not: "TENSOR: row N".
    not_nearest: integers beside which another is nearer to the source; in_bf16: those of them that
    a step in bf16 gives; square_more: what they add to square_error; must: there must be none.
    """

    name: str
    what: str
    matrices: int = 0
    checked: int = 0
    values: int = 0
    integers: int = 0
    scales: int = 0
    wrong_scales: int = 0
    wrong_scale: str = ""
    largest: float = 0.0
    worst: str = ""
    error_sum: float = 0.0
    square_error: float = 0.0
    square_value: float = 0.0
    not_nearest: int = 0
    in_bf16: int = 0
    square_more: float = 0.0
    must: bool = False
    bound: float = 0.0
    different: str = ""

    def add(self, part: Kind) -> None:
        """What was found of one matrix."""
        self.checked += part.checked
        self.values += part.values
        self.integers += part.integers
        self.scales += part.scales
        self.wrong_scales += part.wrong_scales
        self.wrong_scale = self.wrong_scale or part.wrong_scale
        self.error_sum += part.error_sum
        self.square_error += part.square_error
        self.square_value += part.square_value
        self.not_nearest += part.not_nearest
        self.in_bf16 += part.in_bf16
        self.square_more += part.square_more
        self.bound = max(self.bound, part.bound)
        self.must = self.must or part.must
        self.different = self.different or part.different
        if part.largest > self.largest:
            self.largest, self.worst = part.largest, part.worst

    def problems(self) -> list[str]:
        """What is wrong, each a sentence without a full stop."""
        found = []
        if self.different:
            found.append(f"not equal to the source: {self.different}")
        if self.wrong_scale:
            more = f" ({self.wrong_scales} rows of this kind)" if self.wrong_scales > 1 else ""
            found.append(f"a scale that the formula does not give: {self.wrong_scale}{more}")
        if self.largest > self.bound:
            error = f"an error of {self.largest:.4g} steps, at most {self.bound:.4f} expected"
            found.append(f"{error}: {self.worst}{self._coarse('; ')}")
        elif self.must and self.not_nearest:
            found.append(self._coarse(f"{self.name}: "))
        return found

    def notes(self) -> list[str]:
        """What is not wrong, but could be better."""
        coarse = "" if self.problems() else self._coarse(f"{self.name}: ")
        return [coarse] if coarse else []

    def _coarse(self, before: str) -> str:
        """How many integers are not the nearest, what that cost, and whether bf16 did it."""
        if not self.not_nearest:
            return ""
        made = "arithmetic in bf16 makes just these (two steps: to bf16, then to int8); "
        why = made if self.in_bf16 >= _SURELY * self.not_nearest else ""
        return (
            f"{before}{100 * self.not_nearest / self.integers:.2g} % of the integers are not the"
            f" nearest: {why}relative error {self._relative():.5f}, of the nearest"
            f" {self._relative(self.square_more):.5f}"
        )

    def _relative(self, less: float = 0.0) -> float:
        rest = max(0.0, self.square_error - less)
        return (rest / self.square_value) ** 0.5 if self.square_value else 0.0

    def report(self) -> dict[str, Any]:
        """For programs."""
        mean = self.error_sum / self.integers if self.integers else 0.0
        share = self.not_nearest / self.integers if self.integers else 0.0
        relative = {
            "relative_rms_error": self._relative(),
            "nearest_relative_rms_error": self._relative(self.square_more),
        }
        problems = self.problems()
        return {
            **{"kind": self.name, "what": self.what, "matrices": self.matrices},
            **{"checked": self.checked, "values": self.values, "max_error_steps": self.largest},
            **{"mean_error_steps": mean, **relative, "bound": self.bound, "not_nearest": share},
            **{"worst": self.worst, "different": self.different, "scales": self.scales},
            **{"wrong_scales": self.wrong_scales, "problems": problems, "notes": self.notes()},
            "ok": not problems,
        }


def kind_of(name: str) -> str:
    """model.layers.7.mlp.experts.12.up_proj.weight: mlp.experts.up_proj."""
    short = re.sub(r"^model\.layers\.\d+\.", "", name)
    return re.sub(r"\.\d+(?=\.)", "", short).rpartition(".")[0] or short


def compare(
    source: Conversion,
    target: Checkpoint,
    slim: bool,
    rows: Optional[int],
    each: Optional[int],
    threads: int,
    meter: Meter,
    all_scales: bool = False,
) -> list[Kind]:
    """slim: msmodelslim has made the target. rows: of each matrix, evenly spread, None: all. each:
    matrices of a kind, None: all. all_scales: of these matrices every row's, not only those of the
    rows.
    """
    groups: dict[tuple[str, str], list[Piece]] = {}
    for shard in source.shards:
        for piece in shard.pieces:
            new = target.tensors.get(piece.source.name)
            if new is not None and new.dtype in SIZES:  # else the structure is wrong
                groups.setdefault((kind_of(piece.source.name), piece.what), []).append(piece)
    found = []
    work: list[tuple[Kind, _Matrix]] = []
    for (name, what), pieces in sorted(groups.items()):
        made = Kind(name, what, matrices=len(pieces))
        found.append(made)
        chosen = spread(pieces, each)
        work += [(made, _Matrix(source, target, slim, one, rows, all_scales)) for one in chosen]
    meter.total = sum(matrix.bytes for _, matrix in work)
    with ThreadPoolExecutor(threads) as pool:
        for (kind, _), part in zip(work, pool.map(lambda one: one[1].check(meter), work)):
            kind.add(part)
    return found


def spread(items: Sequence[Any], count: Optional[int]) -> list[Any]:
    """count of them, evenly spread, first and last included."""
    if count is None or len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


class _Matrix:
    """One tensor of the source, and what became of it."""

    def __init__(
        self,
        source: Conversion,
        target: Checkpoint,
        slim: bool,
        piece: Piece,
        rows: Optional[int],
        all_scales: bool,
    ) -> None:
        self.source = source
        self.target = target
        self.slim = slim
        self.piece = piece
        self.old = piece.source
        self.new = target.tensors[piece.source.name]
        shape = self.old.shape
        self.is_matrix = len(shape) > 1
        self.rows = np.array(spread(range(shape[0] if self.is_matrix else 1), rows))
        self.scale = target.tensors.get(f"{self.old.name}{SCALE}")
        self.fewer = self.is_matrix and len(self.rows) < shape[0]
        self.quantised = self.new.dtype == "I8" and self.old.dtype != "I8"
        self.all_scales = all_scales and self.fewer and self.quantised
        scale_dtype = self.scale.dtype if self.scale is not None else "F32"
        self.limits = Limits.of(self.slim, self.old.dtype, scale_dtype)

    @property
    def bytes(self) -> int:
        """Of the source that are read."""
        part = self.old.size
        if self.is_matrix:
            part = self.old.size * len(self.rows) // max(1, self.old.shape[0])
        return part + (self.old.size if self.all_scales else 0)

    def check(self, meter: Meter) -> Kind:
        """Its findings alone."""
        made = Kind("", self.piece.what, checked=1)
        if self.quantised:
            made.bound, made.must = self.limits.steps, self.limits.nearest
        name = self.old.name
        if self.old.shape != self.new.shape:
            made.different = f"{name}: its shape"
        elif self.new.dtype == "I8" and not one_by_one(self.scale, self.new):
            made.different = f"{name}: it is int8 without a scale for each row"
        else:
            with np.errstate(all="ignore"):  # what is not finite is found and told
                self._check(made, meter)
        return made

    def _check(self, made: Kind, meter: Meter) -> None:
        if self.fewer:
            _ask_for(self.source.checkpoint, self.old, self.rows)
            _ask_for(self.target, self.new, self.rows)
        old, now = open_tensor(self.source.checkpoint, self.old), open_tensor(self.target, self.new)
        factors = found = None
        if self.piece.scales is not None:
            told = open_tensor(self.source.checkpoint, self.piece.scales)[:]
            factors = floats(self.piece.scales.dtype, told)
        if self.quantised and self.scale is not None:
            found = floats(self.scale.dtype, open_tensor(self.target, self.scale)[:]).reshape(-1)
            if self.all_scales:
                self._scales(made, old, factors, found, meter)
        width = int(np.prod(old.shape[1:])) if self.is_matrix else old.size
        for rows in _parts(self.rows, width):
            some = rows if self.is_matrix else slice(None)
            a, b = np.asarray(old[some]), np.asarray(now[some])
            if found is not None:
                value = values(self.old, a, factors, self.source.block, rows)
                self._integers(made, value, b, found[rows], rows)
            elif self.piece.what == COPY and self.old.dtype == self.new.dtype:
                self._equal(made, a, b, rows)
            elif self.new.dtype == "BF16":
                wide = values(self.old, a, factors, self.source.block, rows)
                self._equal(made, to_bf16(wide), b, rows)
            meter.add(a.nbytes)

    def _scales(self, made: Kind, old: Any, factors: Any, found: Any, meter: Meter) -> None:
        """Of all rows."""
        for rows in _parts(np.arange(old.shape[0]), old.shape[1]):
            data = np.asarray(old[rows[0] : rows[-1] + 1])
            tops = largest(self.old, data, factors, self.source.block, rows)
            self._held(made, tops, found[rows], rows)
            meter.add(data.nbytes)

    def _good(self, tops: Any, found: Any) -> Any:
        """Which scales are what they may be."""
        of_zeros = found > 0 if self.slim else np.isin(found, _OF_ZEROS)
        return self.limits.good(found, tops) | ((tops == 0) & of_zeros)

    def _held(self, made: Kind, tops: Any, found: Any, rows: Any) -> None:
        """Scales against those that the formula gives."""
        made.scales += len(rows)
        good = self._good(tops, found)
        if good.all():
            return
        at = int(np.flatnonzero(~good)[0])
        made.wrong_scales += int((~good).sum())
        made.wrong_scale = made.wrong_scale or (
            f"{self.old.name}: row {rows[at]} has {found[at]:.6g},"
            f" expected {row_scales(tops)[at]:.6g}"
        )

    def _integers(self, made: Kind, value: Any, data: Any, found: Any, rows: Any) -> None:
        """Numbers against what stands for them."""
        made.values += value.size
        tops = np.abs(value).max(axis=1)
        if not self.all_scales:
            self._held(made, tops, found, rows)
        known = np.isfinite(tops)
        if not known.all():
            row = rows[int(np.flatnonzero(~known)[0])]
            made.different = f"{self.old.name}: row {row} of the source is not finite"
        use = known & np.isfinite(found)  # other scales are told of
        if not use.any():
            return
        good = self._good(tops, found)
        believed = good & (self.limits.nearest | (tops == 0))
        step = np.where(believed, found, row_scales(tops))[use]
        error = np.abs(value[use] - data[use] * found[use][:, None])
        steps = error / step[:, None]
        worst = steps.max(axis=1)
        if worst.max() > made.largest:
            made.largest = float(worst.max())
            made.worst = f"{self.old.name}: row {rows[use][int(worst.argmax())]}"
        made.integers += steps.size
        made.error_sum += float(steps.sum())
        made.square_error += float((error**2).sum())
        made.square_value += float((value[use] ** 2).sum())
        far = good[use] & (worst * step > _HALF * found[use])
        if far.any():
            self._far(made, value[use][far], data[use][far], found[use][far][:, None])

    def _far(self, made: Kind, value: Any, data: Any, scale: Any) -> None:
        """Rows with values farther from the source than half a step: is another integer nearer?"""
        error = np.abs(value - data * scale)
        least = np.abs(value - _nearest(value / scale) * scale)
        other = error > least + 2 * 127.5 * _FLOAT32 * scale  # either is off by that
        opened = from_bf16(to_bf16(value))
        in_bf16 = data == _nearest(opened / scale)
        in_bf16 |= data == _nearest(from_bf16(to_bf16(opened / scale)))
        made.not_nearest += int(other.sum())
        made.in_bf16 += int((other & in_bf16).sum())
        made.square_more += float((error[other] ** 2 - least[other] ** 2).sum())
        if self.limits.nearest:  # a largest value beyond 127 steps
            made.bound = max(made.bound, float((least / scale).max()))

    def _equal(self, made: Kind, wanted: Any, found: Any, rows: Any) -> None:
        made.values += wanted.size
        if made.different or wanted.tobytes() == found.tobytes():
            return
        if not self.is_matrix:
            made.different = f"{self.old.name}: its values"
            return
        bits = [np.ascontiguousarray(one).view(np.uint8) for one in (wanted, found)]
        unequal = (bits[0] != bits[1]).reshape(len(wanted), -1).any(axis=1)
        made.different = f"{self.old.name}: row {rows[int(unequal.argmax())]}"


def _nearest(steps: Any) -> Any:
    return np.clip(np.rint(steps), -128, 127)


def _parts(rows: Any, width: int) -> list[Any]:
    """rows, as many at once as memory is meant for."""
    size = max(1, _PART // max(1, width))
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def scales(target: Checkpoint, matrices: Sequence[str], threads: int, meter: Meter) -> list[str]:
    """What is wrong with the row scales of all int8 matrices, and msmodelslim's offsets; small, so
    all are read: scales that are not above 0 or not finite, and offsets that are not 0.

    Those of another dtype or shape are the structure's to tell.
    """
    work: list[tuple[Tensor, Callable[[Any], Any], str]] = []
    for name in matrices:
        for end, good, expected in (
            (SCALE, lambda one: np.isfinite(one) & (one > 0), "expected a number above 0"),
            (OFFSET, lambda one: one == 0, "expected 0: rows are symmetric"),
        ):
            tensor = target.tensors.get(f"{name}{end}")
            if tensor is not None and one_by_one(tensor, target.tensors[name]):
                work.append((tensor, good, expected))
    meter.total = sum(tensor.size for tensor, _, _ in work)

    def check(one: tuple[Tensor, Callable[[Any], Any], str]) -> Optional[str]:
        tensor, good, expected = one
        found = floats(tensor.dtype, np.asarray(open_tensor(target, tensor))).reshape(-1)
        wrong = np.flatnonzero(~good(found))
        meter.add(tensor.size)
        if not wrong.size:
            return None
        more = f" ({wrong.size} of {found.size} rows)" if wrong.size > 1 else ""
        return f"{tensor.name}: row {wrong[0]} is {found[wrong[0]]:.6g}{more}, {expected}"

    with ThreadPoolExecutor(threads) as pool:
        return [text for text in pool.map(check, work) if text]
