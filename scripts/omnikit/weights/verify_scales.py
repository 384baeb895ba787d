"""The row scales of all int8 matrices, and msmodelslim's offsets: small, so all are read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

import numpy as np

from omnikit.weights.checkpoint import Checkpoint, Tensor
from omnikit.weights.convert_layout import SCALE
from omnikit.weights.meter import Meter
from omnikit.weights.verify_structure import OFFSET
from omnikit.weights.verify_values import floats, one_by_one, open_tensor


def look(target: Checkpoint, matrices: Sequence[str], threads: int, meter: Meter) -> list[str]:
    """What is wrong: scales that are not above 0 or not finite, and offsets that are not 0.

    Those of another dtype or shape are the structure's to tell.
    """
    work: list[tuple[Tensor, Callable[[Any], Any], str]] = []
    for name in matrices:
        for end, good, expected in (
            (SCALE, _is_scale, "expected a number above 0"),
            (OFFSET, _is_zero, "expected 0: rows are symmetric"),
        ):
            tensor = target.tensors.get(f"{name}{end}")
            if tensor is not None and one_by_one(tensor, target.tensors[name]):
                work.append((tensor, good, expected))
    meter.total = sum(tensor.size for tensor, _, _ in work)

    def check(one: tuple[Tensor, Callable[[Any], Any], str]) -> Optional[str]:
        tensor, good, expected = one
        found = floats(tensor.dtype, np.asarray(open_tensor(target, tensor))).reshape(-1)
        wrong = np.flatnonzero(~good(found))
        meter.add(tensor.size)
        if not wrong.size:
            return None
        more = f" ({wrong.size} of {found.size} rows)" if wrong.size > 1 else ""
        return f"{tensor.name}: row {wrong[0]} is {found[wrong[0]]:.6g}{more}, {expected}"

    with ThreadPoolExecutor(threads) as pool:
        return [text for text in pool.map(check, work) if text]


def _is_scale(found: Any) -> Any:
    return np.isfinite(found) & (found > 0)


def _is_zero(found: Any) -> Any:
    return found == 0
