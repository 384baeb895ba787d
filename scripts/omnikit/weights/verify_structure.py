"""Whether a converted checkpoint has all its tensors, each with the dtype and shape of its form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from omnikit.errors import InputError
from omnikit.weights import architecture, checkpoint, convert_plan
from omnikit.weights.architecture import KEPT, MATRIX, PLAIN
from omnikit.weights.checkpoint import Checkpoint, Tensor
from omnikit.weights.convert_plan import COPY, QUANTISE, SCALE, WIDEN, Conversion

NATIVE, MSMODELSLIM = "compressed-tensors", "msmodelslim"
_OFFSET = "_offset"
_PLAIN = ("BF16", "F32", "F16")  # what is not quantised may be
_DESCRIPTION = "quant_model_description*.json"


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
    expected = of_source(source) if source else of_config(target)
    problems = _quantisation(target, form)
    names = {name for name in target.tensors if not _companion(target, name)}
    problems += architecture.missing(sorted(expected.keys() - names))
    problems += [
        f"{name} belongs to no part of this model" for name in sorted(names - expected.keys())
    ]
    quantised = []
    for name in sorted(names & expected.keys()):
        tensor, (what, dtype, shape) = target.tensors[name], expected[name]
        if tensor.shape != shape:
            problems.append(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        if form == MSMODELSLIM and what in (QUANTISE, WIDEN):
            what = QUANTISE if tensor.dtype == "I8" else WIDEN  # its description says which
        if what == QUANTISE:
            quantised.append(name)
            problems += _scale(target, tensor, form)
        wanted = {QUANTISE: ("I8",), WIDEN: ("BF16",), COPY: dtype}[what]
        if tensor.dtype not in wanted:
            problems.append(f"{name} has dtype {tensor.dtype}, expected {' or '.join(wanted)}")
    if form == MSMODELSLIM:
        problems += _description(target, quantised)
    return Structure(form, problems, quantised)


def recognise(target: Checkpoint) -> str:
    """Which form a folder has. Raises InputError: none of those known."""
    if any(target.folder.glob(_DESCRIPTION)):
        return MSMODELSLIM
    if any(name.endswith(f".weight{_OFFSET}") for name in target.tensors):
        return MSMODELSLIM
    if any(name.endswith(f".weight{SCALE}") for name in target.tensors):
        return NATIVE
    raise InputError(
        "holds no int8 matrix with scales: it is not converted.",
        where=str(target.folder),
        todo="invoke convert-weights",
    )


def of_source(source: Conversion) -> dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """name -> (what becomes of it, dtypes that it may have, shape), from the source's tensors."""
    pieces = [piece for shard in source.shards for piece in shard.pieces]
    return {one.source.name: (one.what, (one.source.dtype,), one.source.shape) for one in pieces}


def of_config(target: Checkpoint) -> dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """The same from config.json alone. Raises InputError: not this family, or a number missing."""
    convert_plan.family(target.config, target.folder)
    what = {MATRIX: (QUANTISE, ("BF16",)), KEPT: (WIDEN, ("BF16",)), PLAIN: (COPY, _PLAIN)}
    return {
        name: (*what[kind], shape)
        for name, (kind, shape) in architecture.tensors(target.config, target.folder).items()
    }


def _companion(target: Checkpoint, name: str) -> bool:
    """Whether a tensor is the scale or offset of a matrix that is there."""
    for end in (SCALE, _OFFSET):
        if name.endswith(f".weight{end}"):
            return name[: -len(end)] in target.tensors
    return False


def _scale(target: Checkpoint, matrix: Tensor, form: str) -> list[str]:
    ends = (SCALE, _OFFSET) if form == MSMODELSLIM else (SCALE,)
    problems = []
    for end in ends:
        tensor = target.tensors.get(f"{matrix.name}{end}")
        if tensor is None:
            problems.append(f"{matrix.name} has no {matrix.name.rpartition('.')[2]}{end}")
            continue
        dtypes = ("F32",) if form == NATIVE else ("F32", "BF16", "F16")
        if tensor.dtype not in dtypes or tensor.shape != (matrix.shape[0], 1):
            found = f"{tensor.dtype} {list(tensor.shape)}"
            expected = f"{' or '.join(dtypes)} [{matrix.shape[0]}, 1]"
            problems.append(f"{tensor.name} is {found}, expected {expected}")
    return problems


def _quantisation(target: Checkpoint, form: str) -> list[str]:
    """config.json must say what the tensors are."""
    told = target.config.get("quantization_config") or {}
    if form == NATIVE:
        expected = convert_plan.new_config(target)["quantization_config"]
        return [
            f"config.json: quantization_config.{key} is {shown(told.get(key))},"
            f" expected {shown(expected[key])}"
            for key in ("quant_method", "format", "ignore")
            if told.get(key) != expected[key]
        ]
    names = target.config.get("architectures")
    if names != ["DeepseekV3ForCausalLM"]:
        return [f"config.json: architectures is {names!r}: run finish_checkpoint.py"]
    return []


def shown(value: Any) -> str:
    """Not more of a value than a person reads."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _description(target: Checkpoint, quantised: list[str]) -> list[str]:
    """msmodelslim's own list of what each tensor is."""
    found = sorted(target.folder.glob(_DESCRIPTION))
    if not found:
        return [f"there is no {_DESCRIPTION}"]
    told = checkpoint.read_json(Path(found[0]))
    problems = []
    for name in target.tensors:
        kind = told.get(name)
        if kind is None:
            problems.append(f"{found[0].name} does not name {name}")
        elif name in quantised and not str(kind).startswith("W8A8"):
            problems.append(f"{found[0].name} calls {name} {kind}, but it is int8")
    return problems[:20]
