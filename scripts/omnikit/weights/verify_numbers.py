"""How far converted numbers are from those that they came from, for each kind of matrix.

Independent of the conversion: numpy, float64, and the numbers of e4m3 from its definition. An error
is told in steps of the row's scale: rounding to the nearest step makes half a step at most.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional, Sequence

import numpy as np

from omnikit.weights.checkpoint import SIZES, Checkpoint, Tensor
from omnikit.weights.convert_plan import COPY, QUANTISE, SCALE, WIDEN, Conversion, Piece
from omnikit.weights.meter import Meter
from omnikit.weights.verify_structure import NATIVE

# The arithmetic is float32: a value of up to 127 steps is off by 2 roundings of 2^-24 at most.
_FLOAT32 = 127 * 2 * 2.0**-24
BOUNDS = {NATIVE: 0.5 + _FLOAT32}
# Scales that were rounded to bf16 after the quantisation: 127 steps x 2^-9 more.
_BF16_SCALE = 0.5 + 127 * 2.0**-9 + _FLOAT32
_PART = 4 << 20  # elements that are compared at once


@dataclass
class Kind:
    """All matrices of one kind, for example mlp.experts.up_proj; errors in steps.

    different: where what must be equal is not: "TENSOR: row N".
    """

    name: str
    what: str
    matrices: int = 0
    checked: int = 0
    values: int = 0
    largest: float = 0.0
    worst: str = ""
    error_sum: float = 0.0
    square_error: float = 0.0
    square_value: float = 0.0
    bound: float = 0.0
    different: str = ""

    @property
    def good(self) -> bool:
        """Whether every value is within its bound, and equal where it must be."""
        return not self.different and self.largest <= self.bound

    def report(self) -> dict[str, Any]:
        """For programs."""
        mean = self.error_sum / self.values if self.values else 0.0
        relative = (self.square_error / self.square_value) ** 0.5 if self.square_value else 0.0
        return {
            **{"kind": self.name, "what": self.what, "matrices": self.matrices},
            **{"checked": self.checked, "values": self.values, "max_error_steps": self.largest},
            **{"mean_error_steps": mean, "relative_rms_error": relative, "bound": self.bound},
            **{"worst": self.worst, "different": self.different, "ok": self.good},
        }


def kind_of(name: str) -> str:
    """model.layers.7.mlp.experts.12.up_proj.weight: mlp.experts.up_proj."""
    short = re.sub(r"^model\.layers\.\d+\.", "", name)
    return re.sub(r"\.\d+(?=\.)", "", short).rpartition(".")[0] or short


def e4m3_values() -> Any:
    """float64 [256]: sign, 4 bits of exponent with bias 7, 3 of mantissa; the last is NaN."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7.0)
    value = np.where(exponent > 0, normal, mantissa / 8 * 2.0**-6)
    value = np.where((byte & 127) == 127, np.nan, value)
    return np.where(byte & 128, -value, value)


_E4M3 = e4m3_values()


def compare(
    source: Conversion,
    target: Checkpoint,
    form: str,
    rows: Optional[int],
    each: Optional[int],
    threads: int,
    meter: Meter,
) -> list[Kind]:
    """rows: of each matrix, evenly spread, None: all. each: matrices of a kind, None: all."""
    groups: dict[tuple[str, str], list[Piece]] = {}
    for shard in source.shards:
        for piece in shard.pieces:
            if piece.source.name in target.tensors:
                groups.setdefault((kind_of(piece.source.name), piece.what), []).append(piece)
    found = []
    work: list[tuple[Kind, Piece]] = []
    for (name, what), pieces in sorted(groups.items()):
        made = Kind(name, what, matrices=len(pieces), bound=BOUNDS.get(form, _BF16_SCALE))
        found.append(made)
        work += [(made, piece) for piece in spread(pieces, each)]
    meter.total = sum(_count(piece, rows) for _, piece in work)
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda one: _check(source, target, one[0], one[1], rows, meter), work)
        for (kind, _), part in zip(work, done):
            _add(kind, part)
    return found


def spread(items: Sequence[Any], count: Optional[int]) -> list[Any]:
    """count of them, evenly spread, first and last included."""
    if count is None or len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def _count(piece: Piece, rows: Optional[int]) -> int:
    """Bytes of the source that are compared."""
    if len(piece.source.shape) < 2 or rows is None:
        return piece.source.size
    all_rows = piece.source.shape[0]
    return piece.source.size * min(rows, all_rows) // max(1, all_rows)


def _check(
    source: Conversion,
    target: Checkpoint,
    kind: Kind,
    piece: Piece,
    rows: Optional[int],
    meter: Meter,
) -> Kind:
    """One matrix."""
    made = Kind(kind.name, kind.what, checked=1, bound=kind.bound)
    tensor, new = piece.source, target.tensors[piece.source.name]
    old, now = open_tensor(source.checkpoint, tensor), open_tensor(target, new)
    if tensor.shape != new.shape:
        made.different = f"{tensor.name}: its shape"
        return made
    scales = None
    if piece.scales is not None:
        scales = open_tensor(source.checkpoint, piece.scales)[:]
    row_scales = target.tensors.get(f"{tensor.name}{SCALE}")
    steps = open_tensor(target, row_scales)[:] if row_scales is not None else None
    chosen = np.array(spread(range(old.shape[0] if old.ndim > 1 else 1), rows))
    width = int(np.prod(old.shape[1:])) if old.ndim > 1 else old.size
    size = max(1, _PART // max(1, width))
    for at in range(0, len(chosen), size):
        some = chosen[at : at + size] if old.ndim > 1 else slice(None)
        a, b = np.asarray(old[some]), np.asarray(now[some])
        if piece.what == COPY and tensor.dtype == new.dtype:
            _equal(made, a, b, tensor.name, some)
        else:
            value = values(tensor, a, scales, source.block, some)
            _numbers(made, value, new, b, steps, some)
        meter.add(a.nbytes)
    return made


def open_tensor(folder: Checkpoint, tensor: Tensor) -> Any:
    """Its bytes in the file, as numbers where numpy has such, else as unsigned integers."""
    dtypes: dict[str, Any] = {"F32": np.float32, "I8": np.int8, "F16": np.float16}
    dtype = (
        dtypes.get(tensor.dtype)
        or {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[SIZES[tensor.dtype]]
    )
    path = folder.folder / tensor.file
    return np.memmap(path, dtype=dtype, mode="r", offset=tensor.start, shape=tensor.shape or (1,))


def values(tensor: Tensor, data: Any, scales: Any, block: Any, rows: Any) -> Any:
    """What the source's data mean: float64, of the same shape."""
    if tensor.dtype == "F8_E4M3":
        wide = scales.astype(np.float64)[rows // block[0]].repeat(block[1], axis=1)
        return _E4M3[data] * wide[:, : data.shape[1]]
    return _floats(tensor.dtype, data)


def _floats(dtype: str, data: Any) -> Any:
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.astype(np.float64)


def _equal(kind: Kind, a: Any, b: Any, name: str, rows: Any) -> None:
    kind.values += a.size
    if a.tobytes() != b.tobytes() and not kind.different:
        kind.different = f"{name}: {_row(a, b, rows)}"


def _row(a: Any, b: Any, rows: Any) -> str:
    if isinstance(rows, slice):
        return "its values"
    unequal = (a != b).reshape(len(a), -1).any(axis=1)
    return f"row {int(rows[int(unequal.argmax())])}"


def _numbers(kind: Kind, value: Any, new: Tensor, data: Any, steps: Any, rows: Any) -> None:
    """Compare numbers with what stands for them."""
    kind.values += value.size
    if new.dtype != "I8":
        rounded = _to_bf16(value)
        if kind.what == WIDEN and new.dtype == "BF16" and rounded.tobytes() != data.tobytes():
            kind.different = kind.different or f"{new.name}: {_row(rounded, data, rows)}"
        return
    if steps is None:
        kind.different = kind.different or f"{new.name}: it is int8 without a scale"
        return
    scale = steps[rows].astype(np.float64).reshape(-1, 1)
    error = np.abs(value - data * scale)
    in_steps = error / np.where(scale > 0, scale, 1.0)
    worst = in_steps.max(axis=1)
    if not np.isfinite(worst).all():
        kind.different = kind.different or f"{new.name}: a scale or value that is not finite"
    elif worst.max() > kind.largest:
        kind.largest = float(worst.max())
        kind.worst = f"{new.name}: row {int(rows[int(worst.argmax())])}"
    kind.error_sum += float(in_steps.sum())
    kind.square_error += float((error**2).sum())
    kind.square_value += float((value**2).sum())


def _to_bf16(value: Any) -> Any:
    """Nearest, ties to even; by way of float32, as every implementation does."""
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _add(kind: Kind, part: Kind) -> None:
    kind.checked += part.checked
    kind.values += part.values
    kind.error_sum += part.error_sum
    kind.square_error += part.square_error
    kind.square_value += part.square_value
    kind.different = kind.different or part.different
    if part.largest > kind.largest:
        kind.largest, kind.worst = part.largest, part.worst


def quantised(kinds: Sequence[Kind]) -> list[Kind]:
    """Those that have errors in steps."""
    return [kind for kind in kinds if kind.what == QUANTISE]
