"""Whether a converted checkpoint has all its tensors, each with the dtype and shape of its form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from omnikit.errors import InputError
from omnikit.weights import architecture, convert_plan, verify_config, verify_expected
from omnikit.weights.checkpoint import Checkpoint, Tensor
from omnikit.weights.convert_layout import COPY, QUANTISE, SCALE, WIDEN
from omnikit.weights.convert_plan import Conversion
from omnikit.weights.verify_expected import Expected

NATIVE, MSMODELSLIM = "compressed-tensors", "msmodelslim"
OFFSET = "_offset"


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
        expected = (
            verify_expected.of_source(source) if source else verify_expected.of_config(target)
        )
        problems += _names(target, expected)
        for name in sorted(target.tensors.keys() & expected.keys()):
            problems += _tensor(target, target.tensors[name], expected, form)
    if form == MSMODELSLIM:
        problems += verify_config.description(target, quantised)
    return Structure(form, problems, quantised)


def recognise(target: Checkpoint) -> str:
    """Which form a folder has. Raises InputError: none of those known."""
    names = target.tensors.keys() | target.index.keys()
    if any(target.folder.glob(verify_config.DESCRIPTION)):
        return MSMODELSLIM
    if any(name.endswith(f".weight{OFFSET}") for name in names):
        return MSMODELSLIM
    if any(name.endswith(f".weight{SCALE}") for name in names):
        return NATIVE
    if (target.folder / convert_plan.MANIFEST).exists():
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
        dtypes = ("F32",) if form == NATIVE else ("F32", "BF16", "F16")
        if tensor.dtype not in dtypes or tensor.shape != (matrix.shape[0], 1):
            found = f"{tensor.dtype} {list(tensor.shape)}"
            expected = f"{' or '.join(dtypes)} [{matrix.shape[0]}, 1]"
            problems.append(f"{tensor.name} is {found}, expected {expected}")
    return problems
