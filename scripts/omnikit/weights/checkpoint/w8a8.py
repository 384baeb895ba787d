"""What a conversion makes of every tensor of a checkpoint, and where each lies in the new files.
Pure data.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError, ManyErrors
from omnikit.weights.checkpoint import architecture
from omnikit.weights.checkpoint.headers import INDEX, SINGLE, SIZES, Checkpoint, Tensor

COPY, QUANTISE, WIDEN = "copied", "quantised", "widened to bf16"
SCALE_INV, SCALE = "_scale_inv", "_scale"
# As omni-infer's own converter names its files.
_NEW_NAME = "quant_model_weight_w8a8_dynamic"
MANIFEST = "omnikit-weights.json"  # what a result says of itself
_KEPT_BF16 = re.compile(r"\.self_attn\.kv_b_proj\.weight$")
# The matrices that DeepSeek's FP8 checkpoints quantise, for sources that are all bf16.
_MATRIX = re.compile(
    r"^model\.layers\.\d+\.(?:self_attn\.(?:q_a_proj|q_b_proj|q_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)"
    r"|mlp\.(?:(?:shared_experts|experts\.\d+)\.)?(?:gate|up|down)_proj)\.weight$"
)
_QUANTISED = ("F8_E4M3", "I8")


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


@dataclass(frozen=True)
class Conversion:
    """block: rows and columns of a block of the source, None where it is bf16."""

    checkpoint: Checkpoint
    block: Optional[tuple[int, int]]
    shards: tuple[NewShard, ...]
    config: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all new safetensors files."""
        return sum(shard.size for shard in self.shards)

    def index(self) -> dict[str, Any]:
        """The new model.safetensors.index.json."""
        weight_map = {name: shard.name for shard in self.shards for name in shard.tensors}
        size = sum(shard.size - len(shard.head) for shard in self.shards)
        return {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}


def plan(checkpoint: Checkpoint) -> Conversion:
    """Raises InputError: another kind of model or quantisation, or tensors that do not fit or that
    are not there.
    """
    block = block_size(checkpoint)
    architecture.check_complete(checkpoint)
    actions = _actions(checkpoint, block)
    held: dict[str, list[Tensor]] = {shard: [] for shard in checkpoint.shards}
    for tensor in checkpoint.tensors.values():
        if tensor.name in actions:
            held[tensor.file].append(tensor)
    shards = tuple(
        new_shard(checkpoint, shard, tensors, actions) for shard, tensors in held.items() if tensors
    )
    return Conversion(checkpoint, block, shards, new_config(checkpoint))


def family(config: dict[str, Any], folder: Path) -> None:
    """Raises InputError: a model of another kind than DeepSeek-V3."""
    names, where = config.get("architectures"), str(folder / "config.json")
    if not isinstance(names, list) or architecture.SERVED not in names:
        raise InputError(
            f"found architectures {names!r}, expected [{architecture.SERVED!r}] (DeepSeek-V3, R1"
            " and models built like them).",
            where=where,
            todo="other models are not converted here; name the folder of such a checkpoint",
        )
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or layers < 1:
        raise InputError(
            f"found num_hidden_layers {layers!r}, expected a number of layers.",
            where=where,
            todo="take config.json from the original checkpoint again",
        )


def block_size(checkpoint: Checkpoint) -> Optional[tuple[int, int]]:
    """(rows, columns) of the source's FP8 blocks, None for a bf16 source. Raises InputError."""
    config, where = checkpoint.config, str(checkpoint.folder / "config.json")
    family(config, checkpoint.folder)
    has_fp8 = any(tensor.dtype == "F8_E4M3" for tensor in checkpoint.tensors.values())
    quantisation = config.get("quantization_config")
    if quantisation is None and not has_fp8:
        return None
    if quantisation is None:  # taken out for msmodelslim (prepare_checkpoint.py)
        return 128, 128
    if not isinstance(quantisation, dict):
        raise InputError(
            f"found quantization_config {quantisation!r}, expected a map.", where=where
        )
    kind = (quantisation.get("quant_method"), quantisation.get("fmt", "e4m3"))
    block = quantisation.get("weight_block_size")
    if kind != ("fp8", "e4m3") or not has_fp8:
        raise InputError(
            f"found quantization_config with quant_method {kind[0]!r} and fmt {kind[1]!r}"
            f"{'' if has_fp8 else ', and no FP8 tensor'}; expected fp8 in e4m3, or none.",
            where=where,
            todo="start from the original FP8 checkpoint, or from a bf16 one",
        )
    sides = block if isinstance(block, list) else []
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"found weight_block_size {block!r}, expected two sizes such as [128, 128].",
            where=where,
            todo="take config.json from the original checkpoint again",
        )
    return sides[0], sides[1]


def _actions(checkpoint: Checkpoint, block: Optional[tuple[int, int]]) -> dict[str, str]:
    """What becomes of each tensor; block scales are left out."""
    tensors = checkpoint.tensors
    found: dict[str, str] = {}
    errors: list[Any] = []

    def wrong(tensor: Tensor, what: str) -> None:
        errors.append(InputError(what, where=f"{checkpoint.folder / tensor.file}: {tensor.name}"))

    for name, tensor in tensors.items():
        if name.endswith(f".weight{SCALE_INV}"):
            matrix = tensors.get(name[: -len(SCALE_INV)])
            if matrix is None:
                wrong(tensor, "a block scale without its matrix.")
            elif matrix.dtype != "F8_E4M3":
                wrong(tensor, f"a block scale of a matrix that is {matrix.dtype}, not FP8.")
            continue
        if tensor.dtype not in SIZES:
            wrong(tensor, f"the dtype {tensor.dtype} is not known here.")
        is_matrix = tensor.dtype == "F8_E4M3" if block else bool(_MATRIX.match(name))
        if not is_matrix:
            found[name] = COPY
            continue
        scales = tensors.get(f"{name}{SCALE_INV}")
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            wrong(tensor, f"found shape {list(tensor.shape)}, expected a matrix.")
        elif f"{name}{SCALE}" in tensors:
            wrong(tensor, f"is not quantised yet, but there is {name}{SCALE} already.")
        elif block is None and tensor.dtype != "BF16":
            wrong(tensor, f"found dtype {tensor.dtype}, expected BF16 or F8_E4M3.")
        elif block is not None and scales is None:
            wrong(tensor, f"is FP8, but there is no {name}{SCALE_INV}.")
        elif block is not None and scales is not None:
            blocks = tuple(-(-size // side) for size, side in zip(tensor.shape, block))
            if (scales.dtype, scales.shape) != ("F32", blocks):
                expected = f"F32 {list(blocks)}"
                wrong(scales, f"found {scales.dtype} {list(scales.shape)}, expected {expected}.")
        keep = bool(_KEPT_BF16.search(name))
        found[name] = QUANTISE if not keep else WIDEN if block else COPY
    if not errors and QUANTISE not in found.values():
        what = "no matrix to quantise was found."
        errors.append(InputError(what, where=str(checkpoint.folder)))
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(errors[:20])
    return found


def new_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json with the quantisation as omni-infer v0.4.1's converter writes it.

    checkpoint: a source, or a result: of both, ignored are the matrices that are no integers after
    the conversion.
    """
    quantised = any(one.dtype in _QUANTISED for one in checkpoint.tensors.values())
    kept = [one.name for one in checkpoint.tensors.values() if _is_kept(one, quantised)]
    ignored = [name[: -len(".weight")] for name in kept]
    ignored.sort(key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    common: dict[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True}
    empty: dict[str, Any] = dict.fromkeys(("group_size", "block_structure", "actorder"))
    empty["observer_kwargs"] = {}
    token = {"strategy": "token", "dynamic": True, "observer": "memoryless"}
    channel = {"strategy": "channel", "dynamic": False, "observer": "minmax"}
    group = {
        "targets": ["Linear"],
        "input_activations": {**common, **token, **empty},
        "weights": {**common, **channel, **empty},
        "output_activations": None,
    }
    quantisation = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "global_compression_ratio": 1.5943962512751309,
        "ignore": ignored,
        "config_groups": {"group_0": group},
    }
    return {**checkpoint.config, "quantization_config": quantisation}


def _is_kept(tensor: Tensor, quantised: bool) -> bool:
    """Whether a matrix keeps its dtype. quantised: the checkpoint has FP8 or int8 matrices; one in
    bf16 beside them stays as it is, while of a checkpoint that is all bf16 they are converted.
    """
    if _KEPT_BF16.search(tensor.name):
        return True
    is_matrix = bool(_MATRIX.match(tensor.name))
    return is_matrix and quantised and tensor.dtype not in _QUANTISED


def other_files(folder: Path) -> list[Path]:
    """What is copied as it is: tokenizer, generation settings, code, licence."""
    skipped = ("config.json", INDEX, SINGLE, MANIFEST)
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.name not in skipped
        and not path.name.endswith(INDEX.partition(".")[2])  # of whatever shards
        and not path.name.startswith(".")
        and path.suffix not in (".safetensors", ".incomplete")
    )
