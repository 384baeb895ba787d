"""scripts/config.py as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import config
import pytest
import yaml
from settings_file import write

SCRIPT = Path(config.__file__)


def test_the_merged_settings_are_printed_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["--environment", "2p1d"]) == 0
    printed = capsys.readouterr().out
    shown = yaml.safe_load(printed)
    assert shown["hosts"]["p1"] == {"address": "192.0.2.12", "user": "root"}
    assert shown["ports"]["proxy"] == 7000
    assert list(shown)[:2] == ["profile", "runtime"]


def test_changed_and_origin_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["--changed", "--origin", "--set", "ports.zmq=5570"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(" ".join(line.split()) == "ports.zmq = 5570 # --set ports.zmq" for line in lines)
    assert any(line.endswith("# configs/environments/local.yaml:2") for line in lines)
    assert not any("configs/defaults.yaml" in line for line in lines)


@pytest.mark.parametrize("form", [[], ["--origin"], ["--json"], ["--json", "--origin"]])
def test_secrets_of_the_environment_are_not_printed(
    form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", "server.command=[serve, --api-key, LEAK]"]
    assert config.main([*given, *form]) == 0
    said = capsys.readouterr().out
    assert "LEAK" not in said and said.count("[redacted]") == 1
    assert config.main(["--set", "server.env.vllm_api_key=LEAK", *form]) == 2
    said = "".join(capsys.readouterr())
    assert "LEAK" not in said and "vllm_api_key: {file: PATH}" in said


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["topology"]["proxy"] == "local"
    assert config.main(["--json", "--origin"]) == 0
    found = json.loads(capsys.readouterr().out)["topology.proxy"]
    assert found["value"] == "local"
    assert found["origin"].startswith("configs/environments/local.yaml:")


def test_the_schema_goes_to_a_file_or_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.json"
    assert config.main(["--schema", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert config.main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text(encoding="utf-8"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["schema.json"]


def test_a_schema_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (tmp_path, tmp_path / "no" / "such"):
        assert config.main(["--schema", str(target)]) == 2
        assert f"error: {target}: cannot write the schema" in capsys.readouterr().err


def test_bad_input_ends_with_2_and_says_where_and_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, "ports:\n  proxi: 7001\nruntime: dockr\n")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--config", path], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}:2: unknown setting ports.proxi, is it ports.proxy?" in done.stderr
    assert f"{path}:3: runtime: found 'dockr', expected process or docker." in done.stderr
    assert "What to do: " in done.stderr
    assert "Traceback" not in done.stderr


def test_bytes_that_are_no_text_in_an_option_are_bad_input(tmp_path: Path) -> None:
    words = [sys.executable.encode(), bytes(SCRIPT), b"--set", b"model.served_name=\xff"]
    done = subprocess.run(words, capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    assert b"U+DCFF has no place in a setting" in done.stderr
