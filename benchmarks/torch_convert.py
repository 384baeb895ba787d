"""Baselines of bench_weights.py, in the engine's Python (torch): the same formula, straightforward.

torch_convert.py one SOURCE TARGET: FP8 to int8, a file at a time.
torch_convert.py two SOURCE BETWEEN TARGET: FP8 to a bf16 checkpoint, then that to int8 in bf16
arithmetic, as the usual tools do it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def opened(weight: Any, scales: Any) -> Any:
    """float32 of an FP8 matrix with its block scales."""
    rows, columns = weight.shape
    wide = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    return weight.to(torch.float32) * wide


def quantised(value: Any) -> tuple[Any, Any]:
    """int8 and the scale of each row, in the arithmetic of value's dtype."""
    scale = value.abs().amax(dim=1, keepdim=True) / 127
    return torch.round(value / scale).clamp(-127, 127).to(torch.int8), scale.to(torch.float32)


def save(tensors: dict[str, Any], path: Path) -> None:
    """Written and on the disk."""
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_kept(name: str) -> bool:
    """Whether a matrix stays bf16."""
    return "kv_b_proj" in name


def one_step(source: Path, target: Path) -> None:
    """FP8 to int8."""
    for path in sorted(source.glob("*.safetensors")):
        tensors = load_file(path)
        made = {}
        for name, weight in tensors.items():
            if name.endswith("_scale_inv"):
                continue
            if f"{name}_scale_inv" not in tensors:
                made[name] = weight
                continue
            value = opened(weight, tensors[f"{name}_scale_inv"])
            if is_kept(name):
                made[name] = value.to(torch.bfloat16)
            else:
                made[name], made[f"{name}_scale"] = quantised(value)
        save(made, target / path.name)


def two_steps(source: Path, between: Path, target: Path) -> None:
    """FP8 to bf16 on the disk, then to int8."""
    matrices = set()
    for path in sorted(source.glob("*.safetensors")):
        tensors = load_file(path)
        wide = {}
        for name, weight in tensors.items():
            if f"{name}_scale_inv" in tensors:
                matrices.add(name)
                wide[name] = opened(weight, tensors[f"{name}_scale_inv"]).to(torch.bfloat16)
            elif not name.endswith("_scale_inv"):
                wide[name] = weight
        save(wide, between / path.name)
    for path in sorted(between.glob("*.safetensors")):
        made = {}
        for name, value in load_file(path).items():
            if name in matrices and not is_kept(name):
                made[name], made[f"{name}_scale"] = quantised(value)
            else:
                made[name] = value
        save(made, target / path.name)


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[2:]]
    for folder in folders[1:]:
        folder.mkdir(parents=True)
    (one_step if sys.argv[1] == "one" else two_steps)(*folders)
