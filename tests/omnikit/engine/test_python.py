"""Which Python is taken, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.engine import install


def stand_in(folder: Path, name: str, version: str) -> Path:
    """A program that answers as a Python of that version does; an empty version fails."""
    path = folder / name
    answer = f"echo '{version} {path}'" if version else "exit 127"
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def closed_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    return tmp_path


def test_the_best_version_is_taken(closed_path: Path) -> None:
    stand_in(closed_path, "python3", "3.12")
    best = stand_in(closed_path, "python3.11", "3.11")
    assert install.find(None) == install.Python(str(best), "3.11")


def test_a_stand_in_that_does_not_run_is_passed_over(closed_path: Path) -> None:
    stand_in(closed_path, "python3.11", "")
    stand_in(closed_path, "python3", "3.11")
    assert install.find(None).path == str(closed_path / "python3")


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.1"])
def test_an_unsupported_python_is_named_with_what_to_do(closed_path: Path, version: str) -> None:
    path = stand_in(closed_path, "python3", version)
    for wanted in (None, str(path)):
        with pytest.raises(InputError) as caught:
            install.find(wanted)
        assert "needs Python 3.11" in caught.value.what
        assert f"is Python {version}" in caught.value.what
        todo = str(caught.value.todo)
        assert "uv python install 3.11" in todo and "--set engine.python=" in todo


def test_the_one_that_uv_keeps_is_found_without_uv(closed_path: Path) -> None:
    stand_in(closed_path, "python3", "3.12")
    folder = closed_path / "uv/cpython-3.11.13-linux-x86_64-gnu/bin"
    folder.mkdir(parents=True)
    kept = stand_in(folder, "python3.11", "3.11")
    assert install.find(None) == install.Python(str(kept), "3.11")


def test_without_any_python_it_says_where_it_looked(closed_path: Path) -> None:
    with pytest.raises(InputError, match=r"python3\.11 is not there, python3 is not there"):
        install.find(None)
