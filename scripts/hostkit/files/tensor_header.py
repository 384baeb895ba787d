"""What a safetensors file says of itself: 8 bytes (the header's length), the header (JSON), data.

Refuses what the library refuses (0.6.2: https://github.com/huggingface/safetensors), and besides
what two readers could read differently, or none can hold: a name that stands twice, and more
dimensions than torch and numpy have. What reading it costs grows with its length, and no faster.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from hostkit.files import regular

LONGEST = 100_000_000
# Bits of one element.
BITS = {
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8},
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16},
    **{"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64},
}
_DIMENSIONS = 64
_NUMBERS = 2_000_000  # of 500,000 tensors
_MOST = 2**64


class Entry(NamedTuple):
    """begin, end: bytes of the file, from its beginning."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read(path: Path) -> tuple[dict[str, Entry], int]:
    """The tensors of a file by name, and its bytes.

    Raises OSError, or ValueError: a sentence without a full stop that says what is wrong.
    """
    with regular.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LONGEST, size - 8):
            raise ValueError("is no safetensors file, or cut")
        data = file.read(length)
    try:
        described = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_Whole(),
            parse_constant=_refuse,
        )
        tensors = dict(_entries(described, 8 + length))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = f" ({error})" if isinstance(error, _Fault) else ""
        raise ValueError(f"has a broken header{said}") from None
    end = 8 + length
    for name, one in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if one.begin != end:
            raise ValueError(f"has a broken header ({_shown(name)}: a gap or an overlap before it)")
        end = one.end
    if end != size:
        how = "cut" if size < end else "too long"
        raise ValueError(f"has {size} bytes, its header describes {end}: the file is {how}")
    return tensors, size


def _shown(value: object) -> str:
    return ascii(value)[:80]


class _Fault(ValueError):
    """What is wrong with a header, in words."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(one for one, other in zip(names, names[1:]) if one == other)
        raise _Fault(f"{_shown(twice)} stands twice")
    return made


class _Whole:
    """Reads whole numbers: none that no file could need, and not too many."""

    left = _NUMBERS

    def __call__(self, text: str) -> int:
        self.left -= 1
        if self.left < 0 or len(text) > 20 or text[0] == "-":
            raise _Fault("too many numbers, or one that nothing can have")
        return int(text)


def _refuse(text: str) -> Any:
    raise _Fault(f"{text} is no number")


def _entries(described: dict[str, Any], base: int) -> Any:
    told = described.pop("__metadata__", None) or {}
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        raise _Fault("__metadata__ is no map of texts")
    for name, one in described.items():
        name.encode()  # a lone surrogate is no text
        shape, (begin, stop) = one["shape"], one["data_offsets"]
        if not isinstance(shape, list) or len(shape) > _DIMENSIONS:
            raise _Fault(f"{_shown(name)}: its shape is none of at most {_DIMENSIONS} dimensions")
        bits = BITS[one["dtype"]]
        for count in (begin, stop, *shape):
            if type(count) is not int or count >= _MOST:
                raise _Fault(f"{_shown(name)}: {_shown(count)} is no whole number of 64 bits")
        for count in shape:
            bits *= count
            if bits >= 8 * _MOST:
                raise _Fault(f"{_shown(name)}: its shape is larger than any file")
        if bits != 8 * (stop - begin):
            raise _Fault(f"{_shown(name)}: {stop - begin} bytes are not what its shape needs")
        yield name, Entry(one["dtype"], tuple(shape), base + begin, base + stop)
