"""check_ranktable with a table of the user's own; more in test_build_ranktables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    words = ["-e", "tests/environments/npu.yaml", "--table", str(tmp_path / "no.json")]
    done = subprocess.run(
        [sys.executable, "scripts/check_ranktable.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no.json" in done.stderr
