"""A small checkpoint, converted, and copies of it that are damaged or in msmodelslim's form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.convert import run as convert_run
from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.meter import Meter
from omnikit.weights.verify import verification

MATRIX = "model.layers.1.mlp.experts.2.up_proj.weight"  # [128, 256]
DESCRIPTION = "quant_model_description_w8a8_dynamic.json"
_NUMBERS = {"I8": np.int8, "BF16": np.uint16, "F32": np.float32, "F16": np.float16}
Tensors = dict[str, tuple[str, Any]]  # name -> (dtype, array)


def silent(_: str) -> None:
    """Nobody reads the progress."""


def convert(source: Path, target: Path) -> Path:
    """As convert_weights.py does it."""
    plan = w8a8.plan(headers.read(source))
    convert_run.run(plan, target, 2, Meter(0, silent))
    return target


def write(folder: Path, name: str, data: bytes, offset: int = 0) -> None:
    """Bytes of a tensor."""
    tensor = headers.read(folder).tensors[name]
    with (folder / tensor.file).open("r+b") as file:
        file.seek(tensor.start + offset)
        file.write(data)


def without_manifest(folder: Path) -> None:
    """As from another converter."""
    (folder / "omnikit-weights.json").unlink(missing_ok=True)


def rewrite(folder: Path, change: Callable[[Tensors], None]) -> None:
    """All tensors changed as one says, file by file, and the index to go with them."""
    found = headers.read(folder)
    weight_map = {}
    for shard in found.shards:
        data = (folder / shard).read_bytes()
        tensors: Tensors = {}
        for tensor in found.tensors.values():
            if tensor.file == shard:
                array = np.frombuffer(data[tensor.start : tensor.end], _NUMBERS[tensor.dtype])
                tensors[tensor.name] = (tensor.dtype, array.reshape(tensor.shape))
        change(tensors)
        small.save(tensors, folder / shard)
        weight_map.update(dict.fromkeys(tensors, shard))
    (folder / headers.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    without_manifest(folder)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """One JSON object."""
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def as_msmodelslim(folder: Path) -> Path:
    """The same numbers in the other form: offsets, a description, its name for the index."""

    def with_offsets(tensors: Tensors) -> None:
        for name in [one for one in tensors if f"{one}_scale" in tensors]:
            tensors[f"{name}_offset"] = ("F32", np.zeros_like(tensors[f"{name}_scale"][1]))

    rewrite(folder, with_offsets)
    edit_json(folder / "config.json", lambda told: told.pop("quantization_config"))
    describe(folder)
    name = "quant_model_weight_w8a8_dynamic.safetensors.index.json"
    (folder / headers.INDEX).rename(folder / name)
    return folder


def describe(folder: Path) -> None:
    """What msmodelslim says of the tensors."""
    tensors = headers.read(folder).tensors
    int8 = {name for name, tensor in tensors.items() if tensor.dtype == "I8"}
    int8 |= {f"{name}{end}" for name in int8 for end in ("_scale", "_offset")}
    told = {name: "W8A8_DYNAMIC" if name in int8 else "FLOAT" for name in tensors}
    (folder / DESCRIPTION).write_text(json.dumps(told))


def copy(folder: Path, to: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(folder, to))


def verified(target: Path, source: Optional[Path] = None, **more: Any) -> dict[str, Any]:
    """What verify finds; kinds' problems are among the problems."""
    found = verification.verify(target, source, more.get("sample", (8, 64)), 2, silent)
    found["all"] = [*found["problems"], *(p for one in found["kinds"] for p in one["problems"])]
    return found
