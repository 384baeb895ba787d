"""How the edits are told to people and to programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_case import make

from hostkit.base.errors import InputError
from omnikit.weights.msmodelslim import edits


def test_told_and_as_data(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    changes = edits.plan(folder, edits.before())
    text = edits.told(changes, would=True)
    assert f"{folder}/config.json: would be done: quantization_config is removed" in text
    assert '-    "quant_method": "fp8",' in text
    data = edits.data(folder, changes, would=True)
    assert data["result"] == "would be changed"
    assert [one["file"] for one in data["files"]] == ["modeling_deepseek.py", "config.json"]
    edits.apply(changes)
    again = edits.plan(folder, edits.before())
    assert edits.told(again, would=False).splitlines() == [
        f"{folder}/modeling_deepseek.py: unchanged",
        f"{folder}/config.json: unchanged",
    ]
    assert edits.data(folder, again, would=False)["result"] == "unchanged"


def test_a_source_is_no_result_prepared_or_not(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    edits.apply(edits.plan(folder, edits.before()))
    with pytest.raises(InputError, match="names fp8 weights") as raised:
        edits.refuse_unconverted(folder)
    assert "What to do: name the folder of the result" in str(raised.value)
    for text in ("{", "[]", '{"weight_map": {"a.weight": "f", "a.weight_scale": "f"}}'):
        (folder / "model.safetensors.index.json").write_text(text)
        edits.refuse_unconverted(folder)
