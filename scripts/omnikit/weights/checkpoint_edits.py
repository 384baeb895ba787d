"""The edits that the install guide asks for around msmodelslim, and how they are told."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Sequence

from omnikit.errors import InputError
from omnikit.weights import config_edit, modeling_edit
from omnikit.weights.edited_files import Change, Edits

# Of DeepSeek-V3 and -R1, without the MTP layer.
LAYERS = 61


def before() -> Edits:
    """What a downloaded checkpoint needs before msmodelslim."""
    return {"modeling_deepseek.py": modeling_edit.edit, "config.json": config_edit.before}


def after(layers: int = LAYERS, todo: str = "") -> Edits:
    """What its result needs before it can be served. todo: for another number of layers."""
    return {"config.json": lambda text: config_edit.after(text, layers, todo)}


def refuse_unconverted(folder: Path) -> None:
    """Raise InputError for a source: prepared, its config.json is like that of a result."""
    for index in folder.glob("*.safetensors.index.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            names = json.loads(index.read_text("utf-8")).get("weight_map", {})
            if any(str(name).endswith(".weight_scale_inv") for name in names):
                raise InputError(
                    "names fp8 weights (weight_scale_inv): nothing was converted here.",
                    where=str(index),
                    todo=config_edit.UNCONVERTED,
                )


def told(changes: Sequence[Change], *, would: bool) -> str:
    """The changes for people: what each file gets, and the differences."""
    lines = []
    for change in changes:
        if not change.done:
            lines.append(f"{change.path}: unchanged")
        for text in change.done:
            lines.append(f"{change.path}: {'would be done: ' if would else ''}{text}")
        if change.done:
            lines.append(change.diff)
    return "\n".join(line for line in lines if line)


def data(folder: Path, changes: Sequence[Change], *, would: bool) -> dict[str, Any]:
    """The same for programs."""
    done = any(change.done for change in changes)
    return {
        "folder": str(folder),
        "result": ("would be changed" if would else "changed") if done else "unchanged",
        "files": [
            {"file": change.path.name, "changes": list(change.done), "diff": change.diff}
            for change in changes
        ],
    }
