"""Whether what msmodelslim left is a whole result, before it gets its name. Reads headers only.

It asks for what every result must have, and not for each name and dtype: nothing is published about
those, and a guess must not refuse what took hours. Those are verify_weights.py's business.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from omnikit.weights import checkpoint, checkpoint_files
from omnikit.weights.checkpoint import Tensor

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def problems(source: Path, folder: Path) -> list[str]:
    """Why a folder is no conversion of this source; the source may be gone. Empty: it is one."""
    found = checkpoint_files.problems(folder)
    if found:
        return found
    tensors: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors.update(checkpoint.read_header(shard)[0])
    return [*_scales(tensors), *_layers(tensors, max(layers(source), layers(folder)))]


def layers(folder: Path) -> int:
    """How many layers a checkpoint's config.json counts; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((folder / "config.json").read_text("utf-8"))["num_hidden_layers"])
    return 0


def _scales(tensors: dict[str, Tensor]) -> list[str]:
    """Each int8 matrix needs a scale for each of its rows; and there must be some."""
    matrices = [one for one in tensors.values() if one.dtype == "I8" and len(one.shape) == 2]
    if not matrices:
        return ["no matrix is int8: nothing was quantised"]
    bare = [one.name for one in matrices if _rows(tensors, f"{one.name}_scale") != one.shape[0]]
    if not bare:
        return []
    return [f"{len(bare)} of {len(matrices)} int8 matrices have no scale for each row: {bare[0]}"]


def _rows(tensors: dict[str, Tensor], name: str) -> int:
    return tensors[name].shape[0] if name in tensors and tensors[name].shape else 0


def _layers(tensors: dict[str, Tensor], count: int) -> list[str]:
    there = {int(match[1]) for match in map(_LAYER.match, tensors) if match}
    lost = sorted(set(range(count)) - there)
    return [f"of {count} layers these have no tensor: {', '.join(map(str, lost))}"] if lost else []
