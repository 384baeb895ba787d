"""scripts/build_from_source.py: what is meant, shown and refused; from any directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import build_from_source
import pytest
from outside import plain_python
from settings_file import FLEET, write
from source_cases import make_sources

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "build_from_source.py"


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *words], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_help_names_the_script_and_its_options(tmp_path: Path) -> None:
    done = started(tmp_path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: build_from_source.py ")
    for word in ("--only", "--host", "--dir", "--in-container", "--dry-run", "--json"):
        assert word in done.stdout
    assert "exit codes" in done.stdout


@pytest.mark.slow
def test_it_works_from_any_directory_and_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = started(tmp_path, "--dir", "code", "--dry-run", "--only", "build")
    assert done.returncode == 0 and f"cd {tmp_path}/code && bash build/build.sh" in done.stdout
    done = started(tmp_path, "--only", "install", "--dir", "code")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr and not (tmp_path / "code").exists()


def test_the_steps_are_shown_in_their_order(capsys, tmp_path: Path) -> None:
    words = ["--dir", str(tmp_path / "code"), "--dry-run", "--json"]
    assert build_from_source.main([*words, "--only", "check", "--only", "fetch"]) == 0
    shown = json.loads(capsys.readouterr().out)["commands"]["this machine"]
    assert list(shown) == ["fetch", "check"]
    assert build_from_source.main(words) == 0
    shown = json.loads(capsys.readouterr().out)["commands"]["this machine"]
    assert list(shown) == ["fetch", "build", "install", "check"]
    assert not (tmp_path / "code").exists()


def test_an_environment_means_its_hosts(capsys, tmp_path: Path) -> None:
    path = str(write(tmp_path, FLEET + "paths: {code_dir: /data/omniinfer}\n"))
    words = ["-e", path, "--host", "d1", "--in-container", "c1", "--only", "build", "--dry-run"]
    assert build_from_source.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "d1: build",
        "  docker exec -w /data/omniinfer c1"
        """ bash -c '. /root/.bashrc; exec "$@"' bash bash build/build.sh""",
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no folder is set for the source"),
        (["--dir", "/none/code", "--only", "build"], "no such folder"),
        (["--dir", "/x", "--set", "source.vllm_ref=--all"], "not a tag, branch or commit"),
        (["-e", "local", "--host", "x", "--dir", "/x"], "there is no host 'x'"),
    ],
)
def test_mistakes_are_said(capsys, words: list[str], text: str) -> None:
    assert build_from_source.main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_all_steps_into_a_virtual_environment_twice(tmp_path: Path, capsys) -> None:
    sources = make_sources(tmp_path / "repos")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    words = ["--dir", str(tmp_path / "code"), "-e", "local"]
    for name in ("omniinfer", "vllm"):
        url = f"file://{getattr(sources, name)}"
        words += ["--set", f"source.{name}_urls=[{url}]"]
        words += ["--set", f"source.{name}_commit={getattr(sources, f'{name}_commit')}"]
    words += ["--set", f"source.python={tmp_path}/venv/bin/python", "--set", "source.free_mib=1"]
    assert build_from_source.main(words) == 0
    said = capsys.readouterr()
    assert "local: vllm cloned: v0.9.0" in said.out and "local: vllm installed: 0.9.0" in said.out
    assert "local  vllm            0.9.0            yes" in said.out
    assert build_from_source.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [report[step]["hosts"]["local"]["changed"] for step in report] == [False] * 4
    with (tmp_path / "code/omni/__init__.py").open("a") as file:
        file.write("mine = True\n")
    assert build_from_source.main([*words, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["fetch"] and "M omni/__init__.py" in report["fetch"]["errors"]["local"]


def test_a_missing_package_is_exit_code_1(capsys, tmp_path: Path) -> None:
    words = ["--only", "check", "--set", f"source.python={plain_python(tmp_path)}"]
    assert build_from_source.main([*words, "--set", "source.packages=[pip, none-such]"]) == 1
    said = capsys.readouterr()
    assert "none-such  missing" in said.out and "none-such is missing" in said.err
    assert build_from_source.main([*words, "--set", "source.packages=[PIP]"]) == 0
