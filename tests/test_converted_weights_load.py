"""What reads the converted form judges it: the real vLLM, and the compressed-tensors library.

vLLM on CPU computes int8 linear layers, but has no int8 experts: there the library that defines the
form decides.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omnikit.weights.checkpoint import headers
from omnikit.weights.loadable import check as loadable
from omnikit.weights.loadable import small_deepseek as small

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def script(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, f"scripts/{name}", *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_the_engine_loads_what_is_converted(tmp_path: Path, engine_python: Path) -> None:
    source, target = small.make().write(tmp_path / "source"), tmp_path / "target"
    words = [f"--source={source}", f"--target={target}"]
    assert script("convert_weights.py", *words).returncode == 0
    done = script("verify_weights.py", *words, "--loadable", "--python", engine_python, "--json")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    found = json.loads(done.stdout)["loadable"]
    assert found["engine"].startswith("vLLM 0.") and found["ok"]
    assert 0 < found["dense"]["difference"] < loadable.BOUND / 2  # far from a false alarm
    assert found["experts"]["difference"] is None and "Int8 MoE" in found["experts"]["error"]
    assert 0 < found["read_back"]["difference"] < loadable.BOUND


def test_transformers_judge_where_there_is_no_vllm(tmp_path: Path, engine_python: Path) -> None:
    """The engine's Python, in which vLLM cannot be imported."""
    (tmp_path / "site" / "vllm").mkdir(parents=True)
    (tmp_path / "site" / "vllm" / "__init__.py").write_text("raise ImportError('none here')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {engine_python} "$@"\n')
    python.chmod(0o755)
    reader = loadable.reader(str(python))
    assert reader.by == loadable.TRANSFORMERS
    lines: list[str] = []
    found = loadable.check(small.CONFIG, reader, 2, lines.append)
    assert found["engine"].startswith("transformers ") and found["ok"]
    for kind in ("dense", "read_back"):
        assert 0 < found[kind]["difference"] < loadable.BOUND / 2
    assert found["experts"]["difference"] is None
    assert not any("converted" in line for line in lines)


def test_one_wrong_scale_is_seen(tmp_path: Path, engine_python: Path) -> None:
    dense = small.make(rows=loadable.ROWS, first_k_dense_replace=99)
    words = [f"--source={dense.write(tmp_path / 'fp8')}", f"--target={tmp_path / 'wrong'}"]
    assert script("convert_weights.py", *words).returncode == 0
    tensor = headers.read(tmp_path / "wrong").tensors["model.layers.1.mlp.down_proj.weight_scale"]
    with (tmp_path / "wrong" / tensor.file).open("r+b") as file:
        file.seek(tensor.start)
        scales = np.frombuffer(file.read(tensor.size), np.float32)
        file.seek(tensor.start)
        file.write((scales * np.float32(4)).tobytes())
    right = str(small.opened(dense).write(tmp_path / "right"))
    folders = [right, str(tmp_path / "wrong")]
    told = loadable.logits(str(engine_python), folders, tmp_path / "out.json")["folders"]
    compared = loadable.compared(*(told[folder] for folder in folders))["difference"]
    assert compared is not None and compared > 2 * loadable.BOUND
