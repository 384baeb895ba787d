"""What a conversion makes of every tensor of a checkpoint, and where each lies in the new files.
Pure data.

Two formats hold the same int8 matrices with a scale for each row. compressed-tensors says in
config.json what is quantised; ascend_v1 (msmodelslim's) in quant_model_description.json, and has an
offset for each row besides, always 0. The shards are the same files in both: offsets lie in a file
of their own. So a finished checkpoint gets the other format without any arithmetic.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Iterable, Optional

from hostkit.base.errors import InputError, ManyErrors
from hostkit.base.writing import read_back
from omnikit.weights.checkpoint import architecture
from omnikit.weights.checkpoint.hashes import MANIFEST, NAMES
from omnikit.weights.checkpoint.headers import (
    INDEX,
    SINGLE,
    SIZES,
    Checkpoint,
    Tensor,
    read_json,
)

COPY, QUANTISE, WIDEN = "copied", "quantised", "widened to bf16"
SCALE_INV, SCALE = "_scale_inv", "_scale"
# As omni-infer's own converter names its files.
_NEW_NAME = "quant_model_weight_w8a8_dynamic"
# Whose arithmetic made the integers.
OURS, SLIM, OTHER = "native", "msmodelslim", "another tool"
COMPRESSED, ASCEND = "compressed-tensors", "ascend_v1"
FORMATS = (COMPRESSED, ASCEND)
DESCRIPTION = "quant_model_description.json"  # vllm-ascend looks for no other name
DESCRIPTIONS = "quant_model_description*.json"
# Of int8 matrices: activations quantised as they come, and with a scale that is known before.
DYNAMIC, FIXED, FLOAT = "W8A8_DYNAMIC", "W8A8", "FLOAT"
OFFSETS = f"{_NEW_NAME}-offsets.safetensors"
OFFSET = "_offset"
# What a description may tell of besides: quantised caches, rotations.
MORE = ("kv_cache_type", "fa_quant_type", "indexer_quant_type", "optional")
# Matrices that engines hold in bf16 whatever the rest is: kv_b_proj, which they multiply into
# others; the indexer's (msmodelslim leaves wq_b, wk and weights_proj out, too); gates and heads.
_KEPT_BF16 = re.compile(
    r"\.self_attn\.(?:kv_b_proj|indexer\.\w+)\.weight$|\.mlp\.gate\.weight$"
    r"|(?:^|\.)(?:lm_head|embed_tokens|eh_proj|shared_head\.head)\.weight$"
)
# The matrices that FP8 checkpoints quantise, for sources that are all bf16.
_MATRIX = re.compile(
    r"^model\.layers\.\d+\.(?:self_attn\.(?:q_a_proj|q_b_proj|[qkv]_proj|kv_a_proj_with_mqa|kv_b_proj"
    r"|indexer\.wq_b|indexer\.wk|o_proj)"
    r"|mlp\.(?:(?:shared_experts|experts\.\d+)\.)?(?:gate|up|down)_proj)\.weight$"
)
# Besides these, what engines may hold in a Linear layer that could be quantised.
_LINEAR = re.compile(
    r"(?:^lm_head|\.mlp\.gate|\.eh_proj|\.weights_proj|\.shared_head\.head)\.weight$"
)
_QUANTISED = ("F8_E4M3", "I8")
# What msmodelslim adds where activations get a scale that is known before.
STATIC = (".input_scale", ".input_offset", ".quant_bias", ".deq_scale")


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
    lie together; end_scales: where they end. linked: the source's file is taken as it is.
    """

    name: str
    source: str
    head: bytes
    size: int
    pieces: tuple[Piece, ...]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    scales: int
    end_scales: int
    linked: bool = False

    @property
    def in_order(self) -> bool:
        """Whether the file can be made from its beginning to its end: the row scales, which are
        known when all rows were seen, come last.
        """
        return self.end_scales == self.size


def new_shard(
    checkpoint: Checkpoint, shard: str, tensors: list[Tensor], actions: dict[str, str], name: str
) -> NewShard:
    """The file called name that is made of a shard. tensors: of the source; actions: what becomes
    of each.
    """
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
    head = _head(made, place)
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
    return NewShard(name, shard, head, base + end, tuple(pieces), made, *bounds)


def _head(made: dict[str, tuple[str, tuple[int, ...]]], place: dict[str, int]) -> bytes:
    """A safetensors file's bytes before its data."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, at in place.items():
        dtype, shape = made[name]
        offsets = [at, at + prod(shape) * SIZES[dtype]]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


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
    """block: rows and columns of a block of the source, None where it is bf16, or quantised
    already (repacked). format: one of FORMATS.
    """

    checkpoint: Checkpoint
    block: Optional[tuple[int, int]]
    shards: tuple[NewShard, ...]
    config: dict[str, Any]
    format: str = COMPRESSED
    repacked: bool = False

    @property
    def size(self) -> int:
        """Bytes of all new safetensors files; what is linked counts, too."""
        return sum(shard.size for shard in self.shards) + self._of_offsets

    @property
    def _of_offsets(self) -> int:
        head, size = self.offsets()
        return len(head) + size

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Of all shards: name -> (dtype, shape)."""
        return {name: one for shard in self.shards for name, one in shard.tensors.items()}

    def quantised(self) -> list[str]:
        """Names of the matrices that are int8 in the result."""
        found = self.tensors()
        return [name for name in found if f"{name}{SCALE}" in found and found[name][0] == "I8"]

    def offsets(self) -> tuple[bytes, int]:
        """The file of offsets: its bytes before the data, and how many zeros come then. Both empty
        where the shards have the offsets, or the format has none.
        """
        made = {f"{name}{OFFSET}": rows for name, rows in self._lacking().items()}
        if not made:
            return b"", 0
        place, end = _places(made, set())
        return _head(made, place), end

    def _lacking(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        if self.format != ASCEND:
            return {}
        found = self.tensors()
        names = [name for name in self.quantised() if f"{name}{OFFSET}" not in found]
        return {name: ("F32", (found[name][1][0], 1)) for name in names}

    def index(self) -> dict[str, Any]:
        """The new model.safetensors.index.json."""
        weight_map = {name: shard.name for shard in self.shards for name in shard.tensors}
        weight_map.update({f"{name}{OFFSET}": OFFSETS for name in self._lacking()})
        made = self.tensors().values()
        size = sum(prod(shape) * SIZES[dtype] for dtype, shape in made) + self.offsets()[1]
        return {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}

    def texts(self) -> dict[str, dict[str, Any]]:
        """The small files that are made: name -> content."""
        made = {"config.json": self.config, INDEX: self.index()}
        if self.format == ASCEND:
            made[DESCRIPTION] = describe(made[INDEX]["weight_map"], self.quantised())
        return made


def describe(names: Iterable[str], quantised: Iterable[str]) -> dict[str, Any]:
    """What msmodelslim says of each tensor in quant_model_description.json.

    Of a norm's bias nothing: of one that is named there, vllm-ascend 0.9.1 takes it that
    msmodelslim has added it.
    """
    parts = {f"{name}{end}" for name in quantised for end in ("", SCALE, OFFSET)}
    told: dict[str, Any] = {"model_quant_type": DYNAMIC, "version": "1.0.0", "group_size": 0}
    told.update({"metadata": {}, "optional": {}})
    for name in sorted(names):
        if not name.endswith("norm.bias"):
            told[name] = DYNAMIC if name in parts else FLOAT
    return told


def described(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name and the content of msmodelslim's description; empty where there is none. Raises
    InputError: it cannot be read.
    """
    found = sorted(folder.glob(DESCRIPTIONS), key=lambda path: (path.name != DESCRIPTION, path))
    return (found[0].name, read_json(found[0])) if found else ("", {})


def _check_described(checkpoint: Checkpoint) -> None:
    """Raises InputError: a description tells of more than int8 with a scale for each row."""
    file, told = described(checkpoint.folder)
    kinds = {kind for name, kind in told.items() if name in checkpoint.tensors}
    more = sorted(map(str, kinds - {DYNAMIC, FLOAT}))
    more += [f"{key} {told[key]!r}"[:80] for key in MORE if told.get(key)]
    if more:
        raise InputError(
            f"tells of {', '.join(more[:3])}: only {DYNAMIC} has both formats.",
            where=str(checkpoint.folder / file),
            todo="see what loads it as it is: invoke check-checkpoint; or convert the original",
        )


def is_quantised(checkpoint: Checkpoint) -> bool:
    """Whether it is a result: it has int8 matrices with scales."""
    found = checkpoint.tensors
    return any(one.dtype == "I8" and f"{name}{SCALE}" in found for name, one in found.items())


def format_of(checkpoint: Checkpoint) -> str:
    """Of a result, one of FORMATS: by its description, or by the offsets."""
    names = checkpoint.tensors.keys() | checkpoint.index.keys()
    described_so = any(checkpoint.folder.glob(DESCRIPTIONS))
    offsets = any(name.endswith(f".weight{OFFSET}") for name in names)
    return ASCEND if described_so or offsets else COMPRESSED


def plan(checkpoint: Checkpoint, format: str = COMPRESSED) -> Conversion:
    """A conversion; of a checkpoint that is int8 already, the same in this format.

    Raises InputError: another kind of model or quantisation, or tensors that do not fit or that
    are not there.
    """
    if is_quantised(checkpoint):
        return _repacked(checkpoint, format)
    block = block_size(checkpoint)
    architecture.check_complete(checkpoint)
    actions = _actions(checkpoint, block)
    held: dict[str, list[Tensor]] = {shard: [] for shard in checkpoint.shards}
    for tensor in checkpoint.tensors.values():
        if tensor.name in actions:
            held[tensor.file].append(tensor)
    shards = tuple(
        new_shard(checkpoint, shard, tensors, actions, new_name(shard))
        for shard, tensors in held.items()
        if tensors
    )
    return Conversion(checkpoint, block, shards, new_config(checkpoint, format), format)


def _repacked(checkpoint: Checkpoint, format: str) -> Conversion:
    """Files that hold what the format has are taken as they are; else they are copied without what
    it has not. Raises InputError: more is quantised than int8 with a scale for each row.
    """
    family(checkpoint.config, checkpoint.folder)
    tensors = checkpoint.tensors
    _check_described(checkpoint)
    odd = [
        one
        for name, one in tensors.items()
        if (one.dtype in (*_QUANTISED, "U8", "I32") and f"{name}{SCALE}" not in tensors)
        or name.endswith(STATIC)
        or (one.dtype == "I8" and tensors[f"{name}{SCALE}"].shape != (one.shape[0], 1))
    ]
    if odd:
        raise InputError(
            f"{odd[0].name} ({odd[0].dtype}) is no part of W8A8 with activations quantised as they"
            " come: only that has both formats.",
            where=str(checkpoint.folder / odd[0].file),
            todo="see what loads it as it is: invoke check-checkpoint; or convert the original",
        )
    left_out = OFFSET if format == COMPRESSED else "\0"
    shards = []
    for shard in checkpoint.shards:
        held = [one for one in tensors.values() if one.file == shard]
        kept = [one for one in held if not one.name.endswith(f".weight{left_out}")]
        actions = dict.fromkeys((one.name for one in kept), COPY)
        made = new_shard(checkpoint, shard, kept, actions, shard)
        if len(kept) == len(held):
            made = replace(made, size=checkpoint.sizes[shard], linked=True)
        if kept:
            shards.append(made)
    config = new_config(checkpoint, format)
    return Conversion(checkpoint, None, tuple(shards), config, format, repacked=True)


def family(config: dict[str, Any], folder: Path) -> None:
    """Raises InputError: a model whose layers are not known here."""
    names, where = config.get("architectures"), str(folder / "config.json")
    known = isinstance(names, list) and any(one in architecture.FAMILIES for one in names)
    if not known:
        raise InputError(
            f"found architectures {names!r}, expected one of {', '.join(architecture.FAMILIES)}.",
            where=where,
            todo="of other models take weights that are W8A8 already: hubs have many",
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
            if scales.dtype not in ("F32", "BF16") or scales.shape != blocks:
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


def new_config(checkpoint: Checkpoint, format: str = COMPRESSED) -> dict[str, Any]:
    """config.json of a result: for compressed-tensors with the quantisation as omni-infer v0.4.1's
    converter writes it; for ascend_v1 without one.

    checkpoint: a source, or a result.
    """
    config = {key: one for key, one in checkpoint.config.items() if key != "quantization_config"}
    if format == ASCEND:
        return config if "dtype" in config else {**config, "torch_dtype": "bfloat16"}
    ignored = ignorable(checkpoint)
    if config.get("architectures") != [architecture.SERVED]:
        # Engines may look for int8 wherever a Linear layer is; of DeepSeek-V3 omni-infer's own
        # converter names those alone that would be.
        more = [name for name in checkpoint.tensors if _LINEAR.search(name)]
        ignored = sorted({*ignored, *(name[: -len(".weight")] for name in more)}, key=_numbers)
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
        "quant_method": COMPRESSED,
        "format": "int-quantized",
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "global_compression_ratio": 1.5943962512751309,
        "ignore": ignored,
        "config_groups": {"group_0": group},
    }
    return {**config, "quantization_config": quantisation}


def ignorable(checkpoint: Checkpoint) -> list[str]:
    """The matrices of a source, or of a result, that are no integers after the conversion though
    others of their kind are: a description of what is quantised must name them.
    """
    quantised = any(one.dtype in _QUANTISED for one in checkpoint.tensors.values())
    kept = [one.name for one in checkpoint.tensors.values() if _is_kept(one, quantised)]
    return sorted((name[: -len(".weight")] for name in kept), key=_numbers)


def _numbers(name: str) -> tuple[list[int], str]:
    return [int(part) for part in re.findall(r"\d+", name)], name


def _is_kept(tensor: Tensor, quantised: bool) -> bool:
    """Whether a matrix keeps its dtype. quantised: the checkpoint has FP8 or int8 matrices; one in
    bf16 beside them stays as it is, while of a checkpoint that is all bf16 they are converted.
    """
    if not _MATRIX.match(tensor.name):
        return False
    kept = bool(_KEPT_BF16.search(tensor.name))
    return kept or (quantised and tensor.dtype not in _QUANTISED)


def numbers_of(checkpoint: Checkpoint) -> str:
    """Whose arithmetic made a result's integers: OURS, SLIM or OTHER. A repacked one's manifest
    tells of those that it was made of.
    """
    manifest = read_back(checkpoint.folder / MANIFEST)
    told = manifest.get("numbers", manifest.get("method"))  # older ones have the method alone
    if told in (OURS, SLIM, OTHER):
        return str(told)
    return SLIM if format_of(checkpoint) == ASCEND else OTHER


def other_files(folder: Path) -> list[Path]:
    """What is copied as it is: tokenizer, generation settings, code, licence."""
    # A list of checksums is of the source's files.
    skipped = ("config.json", INDEX, SINGLE, MANIFEST, *NAMES)
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.name not in skipped
        and not path.match(DESCRIPTIONS)
        and not path.name.endswith(INDEX.partition(".")[2])  # of whatever shards
        and not path.name.startswith(".")
        and path.suffix not in (".safetensors", ".incomplete")
    )
