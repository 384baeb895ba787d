"""Packages that are used where they are, installed by a real pip into a real environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import source_cases

from hostkit.base.errors import ActionError, InputError
from hostkit.source import editable
from hostkit.source.git import VLLM


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
        "patches": None,
        "set_aside": False,
        "places": [{"python": str(venv / "bin" / "python")}],
        **more,
    }


@pytest.mark.slow
def test_installed_unchanged_and_moved(venv: Path, tmp_path: Path) -> None:
    source_cases.make_tree(tmp_path / "src")
    first = editable.install(given(venv, tmp_path))
    assert first["changed"]
    [rows] = first["places"].values()
    assert [(r["name"], r["action"]) for r in rows] == [
        ("vllm", "installed"),
        ("omni_infer", "installed"),
    ]
    assert rows[0]["why"] == "not installed from here"
    [record] = (tmp_path / "work").iterdir()
    record.write_text(json.dumps({str(venv / "bin" / "python"): 5}))  # damaged: it says nothing
    again = editable.install(given(venv, tmp_path))
    assert not again["changed"]
    (tmp_path / "src").rename(tmp_path / "elsewhere")
    moved = editable.install(given(venv, tmp_path, dir=str(tmp_path / "elsewhere")))
    assert moved["changed"]


@pytest.mark.slow
def test_a_clone_of_vllm_is_patched_where_it_is_installed(venv: Path, tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "src")
    patches = {"patches": source_cases.PATCH_SCRIPT}
    first = editable.install(given(venv, tmp_path, **patches))
    [patched] = first["patched"].values()
    assert first["changed"] and patched["line"] == "vllm patched: 3 patches"
    assert "patched = True" in (code / VLLM / "vllm/__init__.py").read_text()
    again = editable.install(given(venv, tmp_path, **patches))
    assert not again["changed"]
    others = given(venv, tmp_path, patches=None, editable={".": {}})
    assert next(iter(editable.install(others)["patched"].values()))["action"] == "none"


def test_an_unpatched_vllm_without_git_is_not_installed(tmp_path: Path) -> None:
    code = source_cases.make_patchable(tmp_path / "src")
    (code / VLLM / ".git").rename(tmp_path / "away")
    with pytest.raises(InputError, match="this vLLM lacks 3 of 3 patches of omni-infer"):
        editable.install(given(tmp_path, tmp_path, patches=source_cases.PATCH_SCRIPT))


@pytest.mark.slow
def test_a_build_that_fails_is_told_with_its_last_lines(venv: Path, tmp_path: Path) -> None:
    source = source_cases.make_tree(tmp_path / "src")
    (source / "backend.py").write_text("raise RuntimeError('no compiler today')\n")
    only = given(venv, tmp_path, editable={".": {}})
    with pytest.raises(ActionError, match="no compiler today") as caught:
        editable.install(only)
    assert "invoke pip-install" in str(caught.value.todo)
    assert not (tmp_path / "work" / "packages.json").exists()


def test_no_source_and_no_python_are_mistakes(tmp_path: Path) -> None:
    missing = given(tmp_path, tmp_path, places=[{"python": sys.executable}])
    with pytest.raises(InputError, match="no such folder to install from"):
        editable.install(missing)
    with pytest.raises(InputError, match="there is no /no/python here"):
        editable.install({**missing, "places": [{"python": "/no/python"}]})


def test_a_copy_that_is_not_complete_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    record = {"complete": False, "digest": "x", "files": {}}
    (tmp_path / "src" / ".omnikit-code.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="a transfer was cut") as caught:
        editable.install(given(tmp_path, tmp_path))
    assert caught.value.todo == "copy it first: invoke sync-code"


def test_the_command_names_the_folder_last() -> None:
    words = editable.argv("python3", "/code/a b", ["--no-deps"])
    assert words == ["python3", "-m", "pip", "install", "--no-deps", "--editable", "/code/a b"]
