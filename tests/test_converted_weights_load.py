"""What reads the converted form judges it: the real vLLM, and the compressed-tensors library.

vLLM on CPU computes int8 linear layers, but has no int8 experts (NotImplementedError: "No Int8 MoE
backend"). So a model of dense layers is loaded as it is; one with experts after the library that
defines the form has opened it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_deepseek as small
from omnikit.weights import checkpoint

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

# Reads all int8 matrices of the folder argv[1] with the library and writes what they are, as
# float32, into the file argv[2].
_OPEN = """
import json, sys
from pathlib import Path
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
folder = Path(sys.argv[1])
told = json.loads((folder / "config.json").read_text())["quantization_config"]
scheme = QuantizationConfig.model_validate(told).config_groups["group_0"]
compressor = BaseCompressor.get_value_from_registry(told["format"])
state = {}
for file in sorted(folder.glob("*.safetensors")):
    state.update(load_file(file))
opened = {}
for name, weight in state.items():
    if weight.dtype == torch.int8:
        parts = {"weight": weight, "weight_scale": state[f"{name}_scale"]}
        opened[name] = compressor.decompress(parts, scheme)["weight"].to(torch.float32).contiguous()
save_file(opened, sys.argv[2])
"""


def convert(source: Path, target: Path) -> Path:
    words = ["scripts/convert_weights.py", f"--source={source}", f"--target={target}"]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, timeout=120)
    return target


def test_vllm_and_the_forms_own_library_read_it(tmp_path: Path, engine_python: Path) -> None:
    dense = small.make(first_k_dense_replace=99)
    made = convert(dense.write(tmp_path / "dense"), tmp_path / "dense-int8")
    wrong = tmp_path / "wrong"  # the same with one scale that is not right
    subprocess.run(["cp", "-r", str(made), str(wrong)], check=True)
    _double_a_scale(wrong)
    experts = small.make()
    mixed = convert(experts.write(tmp_path / "experts"), tmp_path / "experts-int8")
    opened = small.opened(experts)
    reread = _opened_by_library(mixed, engine_python)
    assert reread.keys() == {
        name for name, (dtype, _) in experts.tensors.items() if dtype == "F8_E4M3"
    } - {name for name in experts.tensors if "kv_b_proj" in name}
    folders = {
        "dense": small.opened(dense).write(tmp_path / "dense-bf16"),
        "int8": made,
        "wrong": wrong,
        "experts": opened.write(tmp_path / "experts-bf16"),
    }
    opened.tensors.update({name: ("BF16", small.bf16(one)) for name, one in reread.items()})
    folders["reread"] = opened.write(tmp_path / "reread")
    done = subprocess.run(
        [str(engine_python), "tests/checkpoint_logits.py", *map(str, folders.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    found = {name: np.array(said[str(folder)]) for name, folder in folders.items()}
    assert difference(found, "dense", "int8") < 0.15
    assert difference(found, "dense", "wrong") > 0.3
    assert difference(found, "experts", "reread") < 0.15
    assert difference(found, "experts", "dense") > 0.3


def difference(found: dict[str, np.ndarray], a: str, b: str) -> float:
    """Mean difference of log probabilities, in their standard deviations."""
    return float(np.abs(found[a] - found[b]).mean() / found[a].std())


def _double_a_scale(folder: Path) -> None:
    tensor = checkpoint.read(folder).tensors["model.layers.1.mlp.down_proj.weight_scale"]
    with (folder / tensor.file).open("r+b") as file:
        file.seek(tensor.start)
        scales = np.frombuffer(file.read(tensor.size), np.float32)
        file.seek(tensor.start)
        file.write((scales * np.float32(4)).tobytes())


def _opened_by_library(folder: Path, python: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    out = folder.with_name("opened.safetensors")
    words = [str(python), "-c", _OPEN, str(folder), str(out)]
    subprocess.run(words, check=True, timeout=300)
    return load_file(out)
