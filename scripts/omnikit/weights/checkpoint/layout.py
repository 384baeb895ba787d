"""A file of a conversion's result: what of each tensor, and where it will lie. Pure data."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import Any, Optional

from omnikit.weights.checkpoint.headers import SIZES, Checkpoint, Tensor

COPY, QUANTISE, WIDEN = "copied", "quantised", "widened to bf16"
SCALE_INV, SCALE = "_scale_inv", "_scale"
# As omni-infer's own converter names its files.
_NEW_NAME = "quant_model_weight_w8a8_dynamic"


@dataclass(frozen=True)
class Piece:
    """A tensor of the source and what becomes of it.

    what: COPY, QUANTISE or WIDEN. scales: the source's block scales. start: first byte of the new
    tensor in its file; scale_start: of its row scales (QUANTISE only).
    """

    source: Tensor
    what: str
    scales: Optional[Tensor]
    start: int
    scale_start: int = -1


@dataclass(frozen=True)
class NewShard:
    """A file of the result. head: its bytes before the data. size: bytes of the whole file.

    pieces: in the order in which they lie in the file. scales: first byte of the row scales, which
    lie together; end_scales: where they end.
    """

    name: str
    source: str
    head: bytes
    size: int
    pieces: tuple[Piece, ...]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    scales: int
    end_scales: int

    @property
    def in_order(self) -> bool:
        """Whether the file can be made from its beginning to its end: the row scales, which are
        known when all rows were seen, come last.
        """
        return self.end_scales == self.size


def new_shard(
    checkpoint: Checkpoint, shard: str, tensors: list[Tensor], actions: dict[str, str]
) -> NewShard:
    """The file that is made of a shard. tensors: of the source; actions: what becomes of each."""
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    scales: set[str] = set()
    for tensor in sorted(tensors, key=lambda one: one.start):
        what = actions[tensor.name]
        dtype = {COPY: tensor.dtype, QUANTISE: "I8", WIDEN: "BF16"}[what]
        made[tensor.name] = (dtype, tensor.shape)
        if what == QUANTISE:
            made[f"{tensor.name}{SCALE}"] = ("F32", (tensor.shape[0], 1))
            scales.add(f"{tensor.name}{SCALE}")
    place, end = _places(made, scales)
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, at in place.items():
        dtype, shape = made[name]
        offsets = [at, at + prod(shape) * SIZES[dtype]]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    base = len(head)
    pieces = []
    for tensor in sorted(tensors, key=lambda one: place[one.name]):
        what = actions[tensor.name]
        inv = checkpoint.tensors.get(f"{tensor.name}{SCALE_INV}")
        scale_start = place[f"{tensor.name}{SCALE}"] + base if what == QUANTISE else -1
        pieces.append(Piece(tensor, what, inv, place[tensor.name] + base, scale_start))
    first = min((place[name] for name in scales), default=end)
    of_scales = sum(4 * made[name][1][0] for name in scales)
    bounds = base + first, base + first + of_scales
    return NewShard(new_name(shard), shard, head, base + end, tuple(pieces), made, *bounds)


def _places(
    made: dict[str, tuple[str, tuple[int, ...]]], scales: set[str]
) -> tuple[dict[str, int], int]:
    """Where each tensor begins after the header, in order, and where the last one ends.

    The format has no room between tensors, and readers want each at a multiple of its elements'
    size. The row scales come last where that comes out (numbers of elements are mostly even); else
    larger elements first, as the safetensors library itself writes, which always does.
    """

    def at_once(order: list[str]) -> tuple[dict[str, int], int]:
        place, at = {}, 0
        for name in order:
            place[name] = at
            dtype, shape = made[name]
            at += prod(shape) * SIZES[dtype]
        return place, at

    def size(name: str) -> int:
        return SIZES[made[name][0]]

    place, end = at_once(sorted(made, key=lambda name: (name in scales, size(name))))
    if any(at % size(name) for name, at in place.items()):
        place, end = at_once(sorted(made, key=lambda name: (-size(name), name in scales)))
    return place, end


def new_name(shard: str) -> str:
    """The new file's name: "model" is replaced, numbers stay."""
    return shard.replace("model", _NEW_NAME, 1) if "model" in shard else f"{_NEW_NAME}-{shard}"
