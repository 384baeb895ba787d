"""The conversion on a torch device: the same bits as the CPU's kernels.

The engine's torch has no CUDA; its CPU device runs the same code.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from omnikit.errors import ActionError, InputError
from omnikit.weights import checkpoint, convert_plan, convert_run, convert_torch
from omnikit.weights import small_deepseek as small
from omnikit.weights.meter import Meter

ROOT = Path(__file__).resolve().parents[3]

_RUN = """
import sys
from pathlib import Path
from omnikit.weights import checkpoint, convert_plan, convert_run, convert_torch
from omnikit.weights.meter import Meter
plan = convert_plan.plan(checkpoint.read(Path(sys.argv[1])))
convert = convert_torch.converter(convert_torch.arithmetic("cpu"))
convert_run.run(plan, Path(sys.argv[2]), 2, Meter(1, print), convert)
"""


@pytest.mark.slow
@pytest.mark.parametrize("block", [(128, 128), None])
def test_the_bits_are_the_same(tmp_path: Path, engine_python: Path, block: object) -> None:
    source = small.make(block).write(tmp_path / "source")
    conversion = convert_plan.plan(checkpoint.read(source))
    convert_run.run(conversion, tmp_path / "kernels", 2, Meter(1, print))
    words = [str(engine_python), "-c", _RUN, str(source), str(tmp_path / "torch")]
    env = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": "/usr/bin:/bin"}
    subprocess.run(words, check=True, timeout=300, env=env)
    files = sorted(path.name for path in (tmp_path / "kernels").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "torch").iterdir())
    for name in files:
        first, second = (tmp_path / at / name for at in ("kernels", "torch"))
        assert first.read_bytes() == second.read_bytes(), name


def test_a_python_without_torch_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torch is not installed") as caught:
        convert_torch.arithmetic("cuda")
    assert "--device cpu" in str(caught.value.todo)


class OutOfMemoryError(RuntimeError):
    """As torch's own: this Python has no torch."""


@pytest.mark.parametrize(
    ("error", "what", "todo"),
    [
        (OutOfMemoryError("CUDA out of memory."), "cuda has too little memory free", "nvidia-smi"),
        (RuntimeError("CUDA error: an illegal access\nmore"), "an illegal access.", "driver"),
    ],
)
def test_a_device_that_gives_up_is_told(
    tmp_path: Path, error: RuntimeError, what: str, todo: str
) -> None:
    class Full:
        device = "cuda"

        def quantise_fp8(self, *_: Any) -> int:
            raise error

        widen_fp8 = quantise_fp8

    source = small.make().write(tmp_path / "source")
    conversion = convert_plan.plan(checkpoint.read(source))
    convert = convert_torch.converter(Full())
    with pytest.raises(ActionError, match=what) as caught:
        convert_run.run(conversion, tmp_path / "target", 1, Meter(1, print), convert)
    assert todo in str(caught.value.todo) and "--device cpu" in str(caught.value.todo)
