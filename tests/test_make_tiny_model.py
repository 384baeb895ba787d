"""The command line of make_tiny_model.py."""

from __future__ import annotations

import json
from pathlib import Path

import make_tiny_model
import pytest


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = make_tiny_model.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_created_then_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "tiny")
    assert run(capsys, "--out", out) == (0, f"{out}: created\n", "")
    assert run(capsys, "--out", out) == (0, f"{out}: unchanged\n", "")
    assert run(capsys, "--out", out, "--force") == (0, f"{out}: rewritten\n", "")


def test_json_and_the_reason_for_a_rewrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "tiny")
    run(capsys, "--out", out)
    (tmp_path / "tiny" / "config.json").write_text("{}")
    code, said, reason = run(capsys, "--out", out, "--json")
    assert json.loads(said) == {"path": out, "seed": 0, "result": "rewritten"}
    assert (code, reason) == (0, f"{out}: config.json is damaged\n")


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "tiny")
    assert run(capsys, "--out", out, "--dry-run") == (0, f"{out}: would be created\n", "")
    assert not (tmp_path / "tiny").exists()


def test_a_dry_run_refuses_what_a_run_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("")
    code, said, error = run(capsys, "--out", str(tmp_path), "--dry-run")
    assert (code, said) == (2, "")
    assert "What to do: choose another folder" in error


@pytest.mark.parametrize("seed", ["-1", "4294967296", "one"])
def test_a_seed_out_of_range_is_refused(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        make_tiny_model.main(["--out", str(tmp_path / "tiny"), "--seed", seed])
    assert ended.value.code == 2
