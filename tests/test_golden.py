"""Every shipped environment renders exactly what tests/golden shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from golden_files import GOLDEN, SHOWN, golden, rendered, stored
from outside import shipped


@pytest.mark.parametrize("environment", SHOWN)
def test_rendered_files_are_the_stored_ones(environment: str) -> None:
    made, kept = golden(environment), stored(environment)
    assert sorted(made) == sorted(kept)
    for name, text in made.items():
        assert text == kept[name], f"{environment}/{name}: see tests/kit/golden_files.py"


@pytest.mark.slow
def test_every_rendered_script_is_clean_shell(tmp_path: Path) -> None:
    scripts = []
    for environment in SHOWN:
        for name, text in rendered(environment).items():
            if name.endswith("/start.sh"):
                path = tmp_path / environment / name
                path.parent.mkdir(parents=True)
                path.write_text(text, encoding="utf-8")
                scripts.append(str(path))
    assert len(scripts) > 60
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), *scripts], check=True)
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)


def test_a_reviewer_can_read_them_in_one_sitting() -> None:
    lines = sum(path.read_text().count("\n") for path in GOLDEN.rglob("*") if path.is_file())
    assert lines <= 8000


def test_every_shipped_environment_is_shown() -> None:
    assert set(shipped("environments")) == set(SHOWN)
    assert all((GOLDEN / name).is_dir() for name in SHOWN)
