"""What the tests of downloads share: a checkpoint, its server, and the script run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Optional

from omnikit.weights.loadable import small_deepseek as small

ROOT = Path(__file__).resolve().parents[2]
INDEX = "model.safetensors.index.json"


@lru_cache(maxsize=1)
def checkpoint() -> dict[str, bytes]:
    """Name and content of each file of a small DeepSeek checkpoint, in three shards."""
    with TemporaryDirectory() as folder:
        code = {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}
        made = small.make(auto_map=code).write(Path(folder) / "model")
        return {path.name: path.read_bytes() for path in sorted(made.iterdir())}


def shards() -> list[str]:
    return [name for name in checkpoint() if name.endswith(".safetensors")]


def words(target: Path, *more: object) -> list[str]:
    """The script's command line, without long waits between attempts."""
    quick = ["--set=weights.download.delay_s=0.05", "--set=weights.download.attempts=3"]
    script = ROOT / "scripts" / "download_weights.py"
    return [sys.executable, str(script), f"--target={target}", *quick, *map(str, more)]


def environ(home: Path, **more: str) -> dict[str, str]:
    """Without proxies, and without a login of the person who runs the tests."""
    dropped = ("proxy", "HF_", "MODELSCOPE_", "OMNIKIT_")
    kept = {k: v for k, v in os.environ.items() if not any(d.lower() in k.lower() for d in dropped)}
    return {**kept, "HOME": str(home), **more}


def run(
    target: Path, *more: object, code: int = 0, env: Optional[dict[str, str]] = None
) -> subprocess.CompletedProcess[str]:
    given = env or environ(target.parent)
    done = subprocess.run(
        words(target, *more), capture_output=True, text=True, timeout=120, env=given, cwd=ROOT
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def result(target: Path, *more: object) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(run(target, "--json", *more).stdout)
    return data


def content(target: Path) -> dict[str, bytes]:
    """The files that people and engines see."""
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and ".download" not in path.parts
    }
