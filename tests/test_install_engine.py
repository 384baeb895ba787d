"""The command line of install_engine.py."""

from __future__ import annotations

import json
from pathlib import Path

import install_engine
import pytest


def test_a_dry_run_prints_the_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], supported: str
) -> None:
    venv = tmp_path / "engine"
    assert install_engine.main(["--venv", str(venv), "--dry-run", "--python", supported]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{supported} -m venv {venv}"
    assert said[-1] == f"{venv}: would be installed"
    assert not venv.exists()


def test_the_dry_run_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], supported: str
) -> None:
    words = ["--venv", str(tmp_path / "e"), "--dry-run", "--json", "--python", supported]
    assert install_engine.main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["result"], answer["found"]) == ("would be installed", "missing")
    assert answer["commands"]


def test_the_torch_index_is_a_setting_and_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], supported: str
) -> None:
    words = ["--venv", str(tmp_path / "e"), "--dry-run", "--python", supported]
    install_engine.main([*words, "--set", "engine.torch_index=https://a.example/cpu"])
    assert "--index-url https://a.example/cpu" in capsys.readouterr().out
    install_engine.main([*words, "--torch-index", "https://b.example/cpu"])
    assert "--index-url https://b.example/cpu" in capsys.readouterr().out


def test_a_python_that_does_not_fit_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_engine.main(["--venv", str(tmp_path / "e"), "--python", "/bin/false"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "the CPU engine needs Python 3.11" in said.err
    assert not (tmp_path / "e").exists()


def test_pins_that_cannot_be_read_are_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], supported: str
) -> None:
    words = ["--venv", str(tmp_path / "e"), "--requirements", str(tmp_path / "none.txt")]
    assert install_engine.main([*words, "--python", supported]) == 2
    assert "cannot read the engine's pins" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_standalone_reads_no_configuration(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    supported: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMNIKIT_ENVIRONMENT", "none-such")
    pins = tmp_path / "pins.txt"
    pins.write_text(
        "".join(f"{n} --hash=sha256:{'0' * 64}\n" for n in ("pip==26.3", "torch==2.13.0+cpu"))
    )
    words = ["--standalone", "--dry-run", "--python", supported, "--venv", str(tmp_path / "e")]
    assert install_engine.main([*words, "--requirements", str(pins)]) == 0
    said = capsys.readouterr().out
    assert "omnikit-torch.txt" in said and "--index-url" not in said
    assert install_engine.main([*words[2:], "--requirements", str(pins)]) == 2
    assert "none-such" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--requirements", "x", "--set", "engine.python=y"]])
def test_standalone_wants_all_by_options(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_engine.main(["--standalone", "--venv", str(tmp_path / "e"), *more]) == 2
    assert "--standalone" in capsys.readouterr().err


@pytest.fixture
def supported(tmp_path: Path) -> str:
    """A program that answers as a supported Python does; a dry run asks no more of it."""
    path = tmp_path / "python3.11"
    path.write_text(f"#!/bin/sh\necho '3.11 {path}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_the_installed_engine_is_unchanged_by_a_second_run(
    engine_python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = engine_python.parents[1]
    assert install_engine.main(["--venv", str(venv), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "unchanged"
