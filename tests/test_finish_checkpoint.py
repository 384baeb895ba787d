"""The command line of finish_checkpoint.py."""

from __future__ import annotations

import json
from pathlib import Path

import finish_checkpoint
import prepare_checkpoint
import pytest
from checkpoint_case import make

WRITTEN = '{\n  "architectures": "DeepseekV3Fusion",\n  "num_hidden_layers": 62\n}\n'


def test_shown_done_unchanged_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(WRITTEN)
    words = ["--dir", str(tmp_path)]
    assert finish_checkpoint.main([*words, "--dry-run"]) == 0
    assert "would be done: num_hidden_layers: 62 -> 61" in capsys.readouterr().out
    assert path.read_text() == WRITTEN
    assert finish_checkpoint.main([*words, "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out)["files"]
    assert '+  "architectures": ["DeepseekV3ForCausalLM"],' in file["diff"]
    assert finish_checkpoint.main(words) == 0
    assert capsys.readouterr().out == f"{path}: unchanged\n"
    assert finish_checkpoint.main([*words, "--revert"]) == 0
    assert path.read_text() == WRITTEN


def test_another_number_of_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(WRITTEN)
    assert finish_checkpoint.main(["--dir", str(tmp_path), "--layers", "4"]) == 2
    said = capsys.readouterr().err
    assert '"num_hidden_layers": 5 (or 4), found 62' in said
    assert "What to do: another model: add --layers N" in said
    for wrong in ("-1", "0", "x"):
        with pytest.raises(SystemExit) as raised:
            finish_checkpoint.main(["--dir", str(tmp_path), "--layers", wrong])
        assert raised.value.code == 2
        assert "is no whole number above 0" in capsys.readouterr().err


def test_the_source_by_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "m")
    words = ["--dir", str(folder), "--layers", "3"]
    assert finish_checkpoint.main(words) == 2
    assert prepare_checkpoint.main(["--dir", str(folder)]) == 0
    capsys.readouterr()
    assert finish_checkpoint.main(words) == 2
    said = capsys.readouterr().err
    assert "names fp8 weights" in said and "invoke run-msmodelslim" in said
