"""What a host does first: it takes the code, keeps it whole, and does one job with it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from omnikit.fleet import direct_ssh

ROOT = Path(__file__).resolve().parents[3]
BOOT = (ROOT / "scripts" / "hostkit" / "agent" / "receive.py").read_text()


def boot(kept: Path, name: str, given: Any, cut: int = 0) -> subprocess.CompletedProcess[str]:
    """Start it as ssh does."""
    code = base64.b64encode(direct_ssh.host_code()).decode()
    text = code + base64.b64encode(json.dumps(given).encode()).decode()
    argv = [sys.executable, "-c", BOOT, str(kept), str(len(code)), name]
    text = text[:cut] if cut else text
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60)


def test_a_job_is_done_with_code_that_is_kept_and_not_written_again(tmp_path: Path) -> None:
    kept = tmp_path / "jobs" / "host.pyz"
    given = {"work_dir": str(tmp_path), "owner": "ann", "dry_run": True}
    done = boot(kept, "unlock", given)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"changed": False, "lock": None})
    assert kept.read_bytes() == direct_ssh.host_code()
    when = kept.stat().st_mtime_ns
    boot(kept, "unlock", given)
    assert kept.stat().st_mtime_ns == when and list(kept.parent.iterdir()) == [kept]


def test_errors_are_sentences_and_have_exit_codes(tmp_path: Path) -> None:
    done = boot(tmp_path / "host.pyz", "no-such-job", {})
    assert done.returncode == 2 and done.stderr.startswith("error: there is no job")
    done = boot(tmp_path / "host.pyz", "unlock", {}, cut=1000)
    assert done.returncode == 1 and "was cut" in done.stderr
    (tmp_path / "file").write_text("")
    done = boot(tmp_path / "file" / "host.pyz", "unlock", {})
    assert done.returncode == 2 and "file is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_can_read_it() -> None:
    import ast

    ast.parse(BOOT, feature_version=(3, 6))
