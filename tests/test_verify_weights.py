"""The script verify_weights.py: what is right, and everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from omnikit.weights import checkpoint
from omnikit.weights import small_deepseek as small

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
MATRIX = "model.layers.1.mlp.experts.2.up_proj.weight"


def script(name: str, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, f"scripts/{name}", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("weights") / "source")


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    target = source.with_name("made")
    script("convert_weights.py", f"--source={source}", f"--target={target}")
    return target


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_a_good_result_is_called_good(source: Path, made: Path, tmp_path: Path) -> None:
    words = [f"--source={source}", f"--target={made}", "--all", f"--out={tmp_path / 'out'}"]
    done = script("verify_weights.py", *words)
    assert "good: compressed-tensors, 64 of 163 tensors int8, 7 files as made" in done.stdout
    found = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert found["ok"] and found["sample"] == "all" and found["problems"] == []
    kinds = {kind["kind"]: kind for kind in found["kinds"]}
    experts = kinds["mlp.experts.up_proj"]
    assert (experts["matrices"], experts["checked"], experts["values"]) == (12, 12, 12 << 15)
    for kind in found["kinds"]:
        if kind["what"] == "quantised":
            assert 0.49 < kind["max_error_steps"] <= kind["bound"] < 0.50002
            assert 0.2 < kind["mean_error_steps"] < 0.3
    picture = ElementTree.parse(tmp_path / "out" / "weights.svg").getroot()
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "mlp.experts.up_proj" in texts


def test_a_sample_is_spread_and_the_source_is_not_needed(source: Path, made: Path) -> None:
    words = [f"--target={made}", "--json"]
    alone = json.loads(script("verify_weights.py", *words).stdout)
    assert alone["ok"] and alone["kinds"] == [] and alone["hashes"] == 7
    words += [f"--source={source}", "--matrices=2", "--rows=3"]
    found = json.loads(script("verify_weights.py", *words).stdout)
    kinds = {kind["kind"]: kind for kind in found["kinds"]}
    assert found["ok"] and found["sample"] == [2, 3]
    assert kinds["mlp.experts.up_proj"]["values"] == 2 * 3 * 256


def _write(folder: Path, name: str, data: bytes, offset: int = 0) -> None:
    tensor = checkpoint.read(folder).tensors[name]
    with (folder / tensor.file).open("r+b") as file:
        file.seek(tensor.start + offset)
        file.write(data)


def _without_manifest(folder: Path) -> None:
    (folder / "omnikit-weights.json").unlink()


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """All tensors changed as one says, and the index to go with them."""
    found = checkpoint.read(folder)
    numbers = {"I8": np.int8, "BF16": np.uint16, "F32": np.float32}
    weight_map = {}
    for shard in found.shards:
        data = (folder / shard).read_bytes()
        tensors: dict[str, Any] = {}
        for tensor in found.tensors.values():
            if tensor.file == shard:
                array = np.frombuffer(data[tensor.start : tensor.end], numbers[tensor.dtype])
                tensors[tensor.name] = (tensor.dtype, array.reshape(tensor.shape))
        change(tensors)
        small.save(tensors, folder / shard)
        weight_map.update(dict.fromkeys(tensors, shard))
    (folder / checkpoint.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    _without_manifest(folder)


def _drop(tensors: dict[str, Any]) -> None:
    tensors.pop(MATRIX, None)
    tensors.pop(f"{MATRIX}_scale", None)


def _drop_scale(tensors: dict[str, Any]) -> None:
    tensors.pop(f"{MATRIX}_scale", None)


def _stranger(tensors: dict[str, Any]) -> None:
    if MATRIX in tensors:
        tensors["model.layers.1.mlp.experts.2.side_proj.weight"] = tensors[MATRIX]


def _turned(tensors: dict[str, Any]) -> None:
    if MATRIX in tensors:
        dtype, array = tensors[MATRIX]
        tensors[MATRIX] = (dtype, array.T.copy())


def _flat_scale(tensors: dict[str, Any]) -> None:
    name = f"{MATRIX}_scale"
    if name in tensors:
        tensors[name] = ("F32", tensors[name][1].reshape(-1))


def _kept_int8(tensors: dict[str, Any]) -> None:
    name = "model.layers.1.self_attn.kv_b_proj.weight"
    if name in tensors:
        tensors[name] = ("I8", np.zeros(tensors[name][1].shape, np.int8))


def _ignore(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore"] = []
    (folder / "config.json").write_text(json.dumps(config))
    _without_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda f: _rewrite(f, _drop), f"{MATRIX} is missing"),
        (lambda f: _rewrite(f, _drop_scale), "has no weight_scale"),
        (lambda f: _rewrite(f, _stranger), "side_proj.weight belongs to no part"),
        (lambda f: _rewrite(f, _turned), "has shape [256, 128], expected [128, 256]"),
        (lambda f: _rewrite(f, _flat_scale), "is F32 [128], expected F32 [128, 1]"),
        (lambda f: _rewrite(f, _kept_int8), "has dtype I8, expected BF16"),
        (_ignore, "quantization_config.ignore is []"),
        (lambda f: _write(f, MATRIX, b"\x55"), "is not what it was when it was made"),
        (lambda f: (f / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
        (
            lambda f: (f / "more.safetensors").write_bytes(b""),
            "more.safetensors does not belong here",
        ),
    ],
)
@pytest.mark.parametrize("with_source", [False, True])
def test_every_fault_of_structure_is_named(
    source: Path, copy: Path, damage: Callable[[Path], None], what: str, with_source: bool
) -> None:
    damage(copy)
    words = [f"--source={source}"] if with_source else []
    done = script("verify_weights.py", f"--target={copy}", *words, code=1)
    assert f"problem: {what}" in done.stdout or what in done.stdout
    assert "NOT GOOD" in done.stdout


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        (MATRIX, b"\x01\x80", f"an error above 0.5000 steps: {MATRIX}: row 0"),
        (f"{MATRIX}_scale", np.float32(0.5).tobytes(), "an error above 0.5000 steps"),
        (f"{MATRIX}_scale", np.float32("nan").tobytes(), "a scale or value that is not finite"),
        ("model.norm.weight", b"\x00\x00", "not equal to the source: model.norm.weight"),
        ("model.layers.2.self_attn.kv_b_proj.weight", b"\x01\x01", "kv_b_proj.weight: row 0"),
        ("lm_head.weight", b"\x01\x01", "not equal to the source: lm_head.weight: row 0"),
    ],
)
def test_numbers_that_are_not_the_sources_are_found(
    source: Path, copy: Path, name: str, data: bytes, what: str
) -> None:
    _write(copy, name, data)
    _without_manifest(copy)
    words = [f"--source={source}", f"--target={copy}", "--all"]
    done = script("verify_weights.py", *words, code=1)
    assert f"problem: {what}" in done.stdout or what in done.stdout
    assert "no hashes recorded" in done.stdout


def test_the_two_step_way_in_bf16_is_above_the_bound(source: Path, copy: Path) -> None:
    """FP8 to bf16 on disk, then all arithmetic in bf16: what this converter is better than."""
    original = small.make().tensors

    def in_bf16(tensors: dict[str, Any]) -> None:
        def to_bf16(value: Any) -> Any:
            return small.from_bf16(small.bf16(value))

        for name in [one for one in tensors if f"{one}_scale" in tensors]:
            scales = original[f"{name}_scale_inv"][1]
            value = to_bf16(small.widened(original[name][1], scales, (128, 128)))
            scale = to_bf16(np.abs(value).max(axis=1, keepdims=True) / np.float32(127))
            rounded = np.clip(np.rint(to_bf16(value / scale)), -127, 127).astype(np.int8)
            tensors[name] = ("I8", rounded)
            tensors[f"{name}_scale"] = ("F32", scale)

    _rewrite(copy, in_bf16)
    words = [f"--source={source}", f"--target={copy}", "--all", "--json"]
    found = json.loads(script("verify_weights.py", *words, code=1).stdout)
    worst = max(kind["max_error_steps"] for kind in found["kinds"])
    assert found["problems"] == [] and 0.6 < worst < 2


def test_what_msmodelslim_makes_is_recognised(source: Path, copy: Path) -> None:
    def with_offsets(tensors: dict[str, Any]) -> None:
        for name in [one for one in tensors if f"{one}_scale" in tensors]:
            tensors[f"{name}_offset"] = ("F32", np.zeros_like(tensors[f"{name}_scale"][1]))

    _rewrite(copy, with_offsets)
    found = checkpoint.read(copy)
    description = {
        name: "W8A8_DYNAMIC" if tensor.dtype == "I8" or "_scale" in name or "_offset" in name
        else "FLOAT"
        for name, tensor in found.tensors.items()
    }  # fmt: skip
    file = copy / "quant_model_description_w8a8_dynamic.json"
    file.write_text(json.dumps(description))
    done = script("verify_weights.py", f"--source={source}", f"--target={copy}")
    assert "good: msmodelslim, 64 of 227 tensors int8" in done.stdout
    description[MATRIX] = "FLOAT"
    file.write_text(json.dumps(description))
    config = json.loads((copy / "config.json").read_text())
    config["architectures"] = "DeepseekV3Fusion"
    (copy / "config.json").write_text(json.dumps(config))
    done = script("verify_weights.py", f"--source={source}", f"--target={copy}", code=1)
    assert f"calls {MATRIX} FLOAT, but it is int8" in done.stdout
    assert "architectures is 'DeepseekV3Fusion': run finish_checkpoint.py" in done.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--target=/no/such"], "there is no such folder"),
        (["--target={source}"], "it is not converted"),
        (["--target={made}", "--source=/no/such"], "there is no such folder"),
        (["--target={made}", "--rows=0"], "expected 1 or more"),
        (["--target={made}", "--loadable", "--python=/no/python"], "cannot import vllm"),
    ],
)
def test_wrong_input_is_refused(source: Path, made: Path, words: list[str], what: str) -> None:
    given = [word.format(source=source, made=made) for word in words]
    assert what in script("verify_weights.py", *given, code=2).stderr
