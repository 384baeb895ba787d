"""The command line of prepare_checkpoint.py."""

from __future__ import annotations

import json
from pathlib import Path

import prepare_checkpoint
import pytest
from checkpoint_case import MODELING, make


def test_shown_done_unchanged_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "m")
    words = ["--dir", str(folder)]
    assert prepare_checkpoint.main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "would be done" in shown and "+# if is_flash_attn_2_available():" in shown
    assert not (folder / "config.json.orig").exists()
    assert prepare_checkpoint.main(words) == 0
    assert capsys.readouterr().out == shown.replace("would be done: ", "")
    assert prepare_checkpoint.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "unchanged"
    assert prepare_checkpoint.main([*words, "--revert", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "changed"
    assert (folder / "modeling_deepseek.py").read_bytes() == MODELING.encode()


def test_another_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_checkpoint.main(["--dir", str(tmp_path)]) == 2
    assert "give the folder of a whole checkpoint" in capsys.readouterr().err


def test_what_was_deleted_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "m")
    words = ["--dir", str(folder)]
    assert prepare_checkpoint.main(words) == 0
    (folder / "modeling_deepseek.py").unlink()
    assert prepare_checkpoint.main([*words, "--revert"]) == 0
    assert (folder / "modeling_deepseek.py").read_bytes() == MODELING.encode()
    assert "the original is put back" in capsys.readouterr().out
