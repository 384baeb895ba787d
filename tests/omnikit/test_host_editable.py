"""Packages that are used where they are, installed by a real pip into a real environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import source_cases
from omnikit import host_editable
from omnikit.errors import ActionError, InputError


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editable") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


def given(venv: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "dir": str(tmp_path / "src"),
        "editable": {"infer_engines/vllm": {"VLLM_TARGET_DEVICE": "empty"}, ".": {}},
        "args": ["--no-deps", "--no-build-isolation"],
        "http_proxy": None,
        "work_dir": str(tmp_path / "work"),
        "places": [{"python": str(venv / "bin" / "python")}],
        **more,
    }


@pytest.mark.slow
def test_installed_unchanged_and_moved(venv: Path, tmp_path: Path) -> None:
    source_cases.make_tree(tmp_path / "src")
    first = host_editable.install(given(venv, tmp_path))
    assert first["changed"]
    [rows] = first["places"].values()
    assert [(r["name"], r["action"]) for r in rows] == [
        ("vllm", "installed"),
        ("omni_infer", "installed"),
    ]
    assert rows[0]["why"] == "not installed from here"
    again = host_editable.install(given(venv, tmp_path))
    assert not again["changed"]
    (tmp_path / "src").rename(tmp_path / "elsewhere")
    moved = host_editable.install(given(venv, tmp_path, dir=str(tmp_path / "elsewhere")))
    assert moved["changed"]


@pytest.mark.slow
def test_a_build_that_fails_is_told_with_its_last_lines(venv: Path, tmp_path: Path) -> None:
    source = source_cases.make_tree(tmp_path / "src")
    (source / "backend.py").write_text("raise RuntimeError('no compiler today')\n")
    only = given(venv, tmp_path, editable={".": {}})
    with pytest.raises(ActionError, match="no compiler today") as caught:
        host_editable.install(only)
    assert "invoke pip-install" in str(caught.value.todo)
    assert not (tmp_path / "work" / "packages.json").exists()


def test_no_source_and_no_python_are_mistakes(tmp_path: Path) -> None:
    missing = given(tmp_path, tmp_path, places=[{"python": sys.executable}])
    with pytest.raises(InputError, match="no such folder to install from"):
        host_editable.install(missing)
    with pytest.raises(InputError, match="there is no /no/python here"):
        host_editable.install({**missing, "places": [{"python": "/no/python"}]})


def test_a_copy_that_is_not_complete_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    record = {"complete": False, "digest": "x", "files": {}}
    (tmp_path / "src" / ".omnikit-code.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="a transfer was cut") as caught:
        host_editable.install(given(tmp_path, tmp_path))
    assert caught.value.todo == "copy it first: invoke sync-code"


def test_the_command_names_the_folder_last() -> None:
    words = host_editable.argv("python3", "/code/a b", ["--no-deps"])
    assert words == ["python3", "-m", "pip", "install", "--no-deps", "--editable", "/code/a b"]
