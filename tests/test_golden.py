"""Every shipped environment renders exactly what tests/golden shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from golden_files import ENVIRONMENTS, GOLDEN, rendered, stored
from omnikit.layers import PROJECT


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_rendered_files_are_the_stored_ones(environment: str) -> None:
    made, kept = rendered(environment), stored(environment)
    assert sorted(made) == sorted(kept)
    for name, text in made.items():
        assert text == kept[name], f"{environment}/{name}: see tests/golden_files.py"


@pytest.mark.slow
def test_every_shown_script_is_clean_shell() -> None:
    scripts = sorted(str(path) for path in GOLDEN.rglob("start.sh"))
    assert len(scripts) > 60
    subprocess.run([str(Path(sys.executable).with_name("shellcheck")), *scripts], check=True)
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)


def test_every_shipped_environment_is_shown() -> None:
    shipped = {path.stem for path in (PROJECT / "configs" / "environments").glob("*.yaml")}
    assert shipped == set(ENVIRONMENTS)
    assert all((GOLDEN / name).is_dir() for name in shipped)
