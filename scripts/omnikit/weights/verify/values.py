"""What the bytes of a checkpoint mean, read for a verification.

Independent of the conversion: numpy, float64, and the numbers of e4m3 from its definition.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from omnikit.weights.checkpoint.headers import SIZES, Checkpoint, Tensor

_DTYPES: dict[str, Any] = {"F32": np.float32, "I8": np.int8, "F16": np.float16}
_LEVELS = 127  # the largest integer of a row stands for its largest value
_SMALLEST = 2.0**-126  # of float32: a smaller scale has too few bits to divide by


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


def floats(dtype: str, data: Any) -> Any:
    """Numbers of a dtype that needs no block scales: float64."""
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.astype(np.float64)


def values(tensor: Tensor, data: Any, scales: Any, block: Any, rows: Any) -> Any:
    """What the source's data of some rows mean: float64, of the same shape."""
    if tensor.dtype == "F8_E4M3":
        wide = scales.astype(np.float64)[rows // block[0]].repeat(block[1], axis=1)
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
        return (_E4M3[tops] * np.abs(scales.astype(np.float64))[rows // block[0]]).max(axis=1)
    if tensor.dtype == "BF16":
        return floats("BF16", (data & 0x7FFF).max(axis=1))
    return np.abs(floats(tensor.dtype, data)).max(axis=1)


def row_scales(tops: Any) -> Any:
    """What the formula gives for rows with these largest values: float64 [rows]."""
    wanted = tops / _LEVELS
    return np.where(wanted < _SMALLEST, 1.0, wanted)


def to_bf16(value: Any) -> Any:
    """Nearest, ties to even, as uint16; by way of float32, as every implementation does."""
    bits = value.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def one_by_one(scale: Optional[Tensor], matrix: Tensor) -> bool:
    """Whether a tensor can be the scale, or offset, of each row of a matrix."""
    known = ("F32", "BF16", "F16")
    return scale is not None and scale.dtype in known and scale.shape == (matrix.shape[0], 1)
