"""Whether a converted checkpoint has all its tensors, each with the dtype and shape of its form: by
its source, or by config.json alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import architecture, w8a8
from omnikit.weights.checkpoint.architecture import KEPT, MATRIX, PLAIN
from omnikit.weights.checkpoint.headers import Checkpoint, Tensor
from omnikit.weights.checkpoint.layout import COPY, QUANTISE, SCALE, WIDEN
from omnikit.weights.checkpoint.w8a8 import Conversion
from omnikit.weights.verify import config as verify_config

NATIVE, MSMODELSLIM = "compressed-tensors", "msmodelslim"
OFFSET = "_offset"
# name -> (what becomes of it, dtypes that it may have, shape)
Expected = dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]
_PLAIN = ("BF16", "F32", "F16")  # what is not quantised may be


@dataclass(frozen=True)
class Structure:
    """form: NATIVE or MSMODELSLIM. problems: each a sentence. quantised: names of int8 matrices."""

    form: str
    problems: list[str]
    quantised: list[str]


def look(target: Checkpoint, source: Optional[Conversion]) -> Structure:
    """Compare with the source, or with what the configuration says where there is none.

    Raises InputError: neither of the two forms.
    """
    form = recognise(target)
    problems = [_fault(target, error) for error in target.faults]
    problems += _strays(target)
    told = verify_config.native if form == NATIVE else verify_config.msmodelslim
    problems += told(target, source)
    quantised = sorted(
        name
        for name, tensor in target.tensors.items()
        if tensor.dtype == "I8" and len(tensor.shape) == 2
    )
    if source or target.config:
        expected = _of_source(source) if source else _of_config(target)
        problems += _names(target, expected)
        for name in sorted(target.tensors.keys() & expected.keys()):
            problems += _tensor(target, target.tensors[name], expected, form)
    if form == MSMODELSLIM:
        problems += verify_config.description(target, quantised)
    return Structure(form, problems, quantised)


def _of_source(source: Conversion) -> Expected:
    """From the source's tensors."""
    pieces = [piece for shard in source.shards for piece in shard.pieces]
    return {one.source.name: (one.what, (one.source.dtype,), one.source.shape) for one in pieces}


def _of_config(target: Checkpoint) -> Expected:
    """From config.json. Raises InputError: not this family, or a number missing."""
    config = target.config
    if verify_config.is_unfinished(config):
        config = _finished(target)
    w8a8.family(config, target.folder)
    what = {MATRIX: (QUANTISE, ("BF16",)), KEPT: (WIDEN, ("BF16",)), PLAIN: (COPY, _PLAIN)}
    return {
        name: (*what[kind], shape)
        for name, (kind, shape) in architecture.tensors(config, target.folder).items()
    }


def _finished(target: Checkpoint) -> dict[str, Any]:
    """As finish_checkpoint.py makes it. The MTP layer is counted where that many layers lie here
    with it.
    """
    found = (re.match(r"model\.layers\.(\d+)\.", name) for name in target.tensors)
    there = max((int(match[1]) + 1 for match in found if match), default=0)
    config = {**target.config, "architectures": [architecture.SERVED]}
    if config.get("num_nextn_predict_layers") and config.get("num_hidden_layers") == there:
        config["num_hidden_layers"] = there - 1
    return config


def recognise(target: Checkpoint) -> str:
    """Which form a folder has. Raises InputError: none of those known."""
    names = target.tensors.keys() | target.index.keys()
    if any(target.folder.glob(verify_config.DESCRIPTION)):
        return MSMODELSLIM
    if any(name.endswith(f".weight{OFFSET}") for name in names):
        return MSMODELSLIM
    if any(name.endswith(f".weight{SCALE}") for name in names):
        return NATIVE
    if (target.folder / w8a8.MANIFEST).exists():
        return NATIVE
    raise InputError(
        "holds no int8 matrix with scales: it is not converted.",
        where=str(target.folder),
        todo="invoke convert-weights",
    )


def _fault(target: Checkpoint, error: InputError) -> str:
    """In the words of a report, where files are named from the folder on."""
    where = (error.where or "").removeprefix(f"{target.folder}/")
    return f"{where} {error.what}".rstrip(".")


def _strays(target: Checkpoint) -> list[str]:
    there = {path.name for path in target.folder.glob("*.safetensors")}
    return [
        f"{name} does not belong here: the index does not name it"
        for name in sorted(there.difference(target.shards))
    ]


def _names(target: Checkpoint, expected: Expected) -> list[str]:
    """Tensors that lack, but for those of files that are told of already, and strangers."""
    names = {name for name in target.tensors if not _companion(target, name)}
    return architecture.missing(sorted(expected.keys() - names - target.index.keys())) + [
        f"{name} belongs to no part of this model" for name in sorted(names - expected.keys())
    ]


def _tensor(target: Checkpoint, tensor: Tensor, expected: Expected, form: str) -> list[str]:
    """Dtype, shape and scale of one."""
    what, dtypes, shape = expected[tensor.name]
    problems = []
    if tensor.shape != shape:
        found = f"{tensor.name} has shape {list(tensor.shape)}"
        problems.append(f"{found}, expected {list(shape)}")
    if form == MSMODELSLIM and what in (QUANTISE, WIDEN):
        what = QUANTISE if tensor.dtype == "I8" else WIDEN  # its description says which
    if what == QUANTISE:
        problems += _scale(target, tensor, form)
    wanted = {QUANTISE: ("I8",), WIDEN: ("BF16",), COPY: dtypes}[what]
    if tensor.dtype not in wanted:
        found = f"{tensor.name} has dtype {tensor.dtype}"
        problems.append(f"{found}, expected {' or '.join(wanted)}")
    return problems


def _companion(target: Checkpoint, name: str) -> bool:
    """Whether a tensor is the scale or offset of an int8 matrix that is there."""
    for end in (SCALE, OFFSET):
        if name.endswith(f".weight{end}"):
            matrix = target.tensors.get(name[: -len(end)])
            # A matrix in a file that cannot be read: that file is told of.
            return matrix.dtype == "I8" if matrix else name[: -len(end)] in target.index
    return False


def _scale(target: Checkpoint, matrix: Tensor, form: str) -> list[str]:
    problems = []
    for end in (SCALE, OFFSET) if form == MSMODELSLIM else (SCALE,):
        name = f"{matrix.name}{end}"
        tensor = target.tensors.get(name)
        if tensor is None:
            if name not in target.index:
                problems.append(f"{matrix.name} has no {name.rpartition('.')[2]}")
            continue
        dtypes = ("F32", "BF16", "F16")
        if tensor.dtype not in dtypes or tensor.shape != (matrix.shape[0], 1):
            found = f"{tensor.dtype} {list(tensor.shape)}"
            expected = f"{' or '.join(dtypes)} [{matrix.shape[0]}, 1]"
            problems.append(f"{tensor.name} is {found}, expected {expected}")
    return problems
