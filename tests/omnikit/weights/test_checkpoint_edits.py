"""How the edits are told to people and to programs."""

from __future__ import annotations

from pathlib import Path

from checkpoint_case import make
from omnikit.weights import checkpoint_edits, edited_files


def test_told_and_as_data(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    changes = edited_files.plan(folder, checkpoint_edits.before())
    text = checkpoint_edits.told(changes, would=True)
    assert f"{folder}/config.json: would be done: quantization_config is removed" in text
    assert '-    "quant_method": "fp8",' in text
    data = checkpoint_edits.data(folder, changes, would=True)
    assert data["result"] == "would be changed"
    assert [one["file"] for one in data["files"]] == ["modeling_deepseek.py", "config.json"]
    edited_files.apply(changes)
    again = edited_files.plan(folder, checkpoint_edits.before())
    assert checkpoint_edits.told(again, would=False).splitlines() == [
        f"{folder}/modeling_deepseek.py: unchanged",
        f"{folder}/config.json: unchanged",
    ]
    assert checkpoint_edits.data(folder, again, would=False)["result"] == "unchanged"
