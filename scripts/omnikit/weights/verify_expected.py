"""The tensors that a converted checkpoint must have: from its source, or from config.json alone."""

from __future__ import annotations

import re
from typing import Any

from omnikit.weights import architecture, config_edit, convert_plan
from omnikit.weights.architecture import KEPT, MATRIX, PLAIN
from omnikit.weights.checkpoint import Checkpoint
from omnikit.weights.convert_layout import COPY, QUANTISE, WIDEN
from omnikit.weights.convert_plan import Conversion

# name -> (what becomes of it, dtypes that it may have, shape)
Expected = dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]
_PLAIN = ("BF16", "F32", "F16")  # what is not quantised may be


def of_source(source: Conversion) -> Expected:
    """From the source's tensors."""
    pieces = [piece for shard in source.shards for piece in shard.pieces]
    return {one.source.name: (one.what, (one.source.dtype,), one.source.shape) for one in pieces}


def of_config(target: Checkpoint) -> Expected:
    """From config.json. Raises InputError: not this family, or a number missing."""
    config = target.config
    if is_unfinished(config):
        config = _finished(target)
    convert_plan.family(config, target.folder)
    what = {MATRIX: (QUANTISE, ("BF16",)), KEPT: (WIDEN, ("BF16",)), PLAIN: (COPY, _PLAIN)}
    return {
        name: (*what[kind], shape)
        for name, (kind, shape) in architecture.tensors(config, target.folder).items()
    }


def is_unfinished(config: dict[str, Any]) -> bool:
    """Whether config.json is as msmodelslim leaves it (finish_checkpoint.py edits it)."""
    names = config.get("architectures")
    return names in (config_edit.CONVERTED, [config_edit.CONVERTED])


def _finished(target: Checkpoint) -> dict[str, Any]:
    """As finish_checkpoint.py makes it. The MTP layer is counted where that many layers lie here
    with it.
    """
    found = (re.match(r"model\.layers\.(\d+)\.", name) for name in target.tensors)
    there = max((int(match[1]) + 1 for match in found if match), default=0)
    config = {**target.config, "architectures": [config_edit.SERVED]}
    if config.get("num_nextn_predict_layers") and config.get("num_hidden_layers") == there:
        config["num_hidden_layers"] = there - 1
    return config
