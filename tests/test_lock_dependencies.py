"""The renewal of the lock files; that they agree with pyproject.toml: tests/adversarial/supply."""

from __future__ import annotations

from pathlib import Path

import lock_dependencies
import pytest
from lock_dependencies import Lock

SUM = f"--hash=sha256:{'0' * 64}"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A uv that says what it was asked: it keeps what the output file has, and adds that."""
    monkeypatch.setattr(lock_dependencies, "ROOT", tmp_path)
    monkeypatch.setattr(lock_dependencies.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "uv").write_text(
        '#!/bin/sh\necho "$*" >asked; cat >given\n'
        'for last; do :; done\ncp "$last" before\necho "new==1 ' + SUM + '" >"$last"\n'
    )
    (tmp_path / "uv").chmod(0o755)
    return tmp_path


def test_versions_stay_unless_newer_ones_are_wanted(uv: Path) -> None:
    (uv / "r.txt").write_text("# What it is.\n# More.\nold==1\n")
    lock = Lock("r.txt", ("pyproject.toml", "--universal"))
    assert lock_dependencies.renewed(lock, False) == f"# What it is.\n# More.\nnew==1 {SUM}\n"
    assert (uv / "before").read_text().endswith("old==1\n")
    asked = (uv / "asked").read_text()
    assert "--generate-hashes" in asked and "--only-binary=:all: " in asked
    assert "--universal" in asked and "--upgrade" not in asked
    lock_dependencies.renewed(lock, True)
    assert "--upgrade" in (uv / "asked").read_text()


def test_what_no_index_of_uvs_has_keeps_its_check_sums(uv: Path) -> None:
    (uv / "r.txt").write_text(f"torch==2+cpu {SUM}\na==1\n")
    after = lock_dependencies.renewed(Lock("r.txt"), False)
    assert after == f"torch==2+cpu \\\n    {SUM}\nnew==1 {SUM}\n"
    assert (uv / "given").read_text() == "a==1\n"
    assert "--no-deps" in (uv / "asked").read_text()


def test_each_file_is_said(uv: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lock_dependencies, "LOCKS", (Lock("r.txt", ("pyproject.toml",)),))
    for state in ("renewed", "unchanged"):
        assert lock_dependencies.main([]) == 0
        assert capsys.readouterr().out == f"r.txt: {state}\n"
