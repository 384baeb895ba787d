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
import run_msmodelslim
from converted_case import (
    DESCRIPTION,
    MATRIX,
    as_msmodelslim,
    edit_json,
    rewrite,
    without_manifest,
    write,
)
from slim_case import Machine

from omnikit.weights.checkpoint import headers
from omnikit.weights.loadable import small_deepseek as small

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


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
    without_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda f: rewrite(f, _drop), f"{MATRIX} is missing"),
        (lambda f: rewrite(f, _drop_scale), "has no weight_scale"),
        (lambda f: rewrite(f, _stranger), "side_proj.weight belongs to no part"),
        (lambda f: rewrite(f, _turned), "has shape [256, 128], expected [128, 256]"),
        (lambda f: rewrite(f, _flat_scale), "is F32 [128], expected F32 or BF16 or F16 [128, 1]"),
        (lambda f: rewrite(f, _kept_int8), "has dtype I8, expected BF16"),
        (_ignore, "quantization_config.ignore is []"),
        (lambda f: write(f, MATRIX, b"\x55"), "is not what it was when it was made"),
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
        (MATRIX, b"\x01\x80", f"steps, at most 0.5000 expected: {MATRIX}: row 0"),
        (f"{MATRIX}_scale", np.float32(0.5).tobytes(), f"{MATRIX}: row 0 has 0.5, expected"),
        (f"{MATRIX}_scale", np.float32("nan").tobytes(), f"{MATRIX}_scale: row 0 is nan"),
        ("model.norm.weight", b"\x00\x00", "not equal to the source: model.norm.weight"),
        ("model.layers.2.self_attn.kv_b_proj.weight", b"\x01\x01", "kv_b_proj.weight: row 0"),
        ("lm_head.weight", b"\x01\x01", "not equal to the source: lm_head.weight: row 0"),
    ],
)
def test_numbers_that_are_not_the_sources_are_found(
    source: Path, copy: Path, name: str, data: bytes, what: str
) -> None:
    write(copy, name, data)
    without_manifest(copy)
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

    rewrite(copy, in_bf16)
    words = [f"--source={source}", f"--target={copy}", "--all", "--json"]
    found = json.loads(script("verify_weights.py", *words, code=1).stdout)
    worst = max(kind["max_error_steps"] for kind in found["kinds"])
    assert found["problems"] == [] and 0.6 < worst < 2


def test_what_msmodelslim_makes_is_recognised(source: Path, copy: Path) -> None:
    as_msmodelslim(copy)
    done = script("verify_weights.py", f"--source={source}", f"--target={copy}")
    assert "good: msmodelslim, 64 of 227 tensors int8" in done.stdout
    edit_json(copy / DESCRIPTION, lambda told: told.update({MATRIX: "FLOAT"}))
    edit_json(copy / "config.json", lambda told: told.update(architectures="DeepseekV3Fusion"))
    done = script("verify_weights.py", f"--source={source}", f"--target={copy}", code=1)
    assert f"calls {MATRIX} FLOAT, but it is int8" in done.stdout
    assert "architectures is 'DeepseekV3Fusion'" in done.stdout
    assert f"What to do: invoke finish-checkpoint --dir {copy}" in done.stdout


def test_what_the_stand_in_for_msmodelslim_writes_is_read(tmp_path: Path) -> None:
    """By the name of its index, which is not the usual one."""
    machine = Machine(tmp_path)
    assert run_msmodelslim.main(machine.options()) == 0
    assert not (machine.out / headers.INDEX).exists()
    words = [f"--target={machine.out}", f"--source={machine.source}", "--all", "--json"]
    found = json.loads(script("verify_weights.py", *words).stdout)
    assert found["form"] == "msmodelslim" and found["ok"] and not found["problems"]
    assert found["quantised"] > 20


def test_a_damaged_target_gets_a_whole_report(source: Path, copy: Path, tmp_path: Path) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.unlink()
    words = [f"--source={source}", f"--target={copy}", f"--out={tmp_path / 'out'}"]
    done = script("verify_weights.py", *words, code=1)
    assert done.stdout.count(f"problem: {shard.name} is missing\n") == 1
    assert "self_attn.o_proj" in done.stdout and "download" not in done.stdout
    assert "convert again" in done.stdout.splitlines()[-1]
    assert not json.loads((tmp_path / "out" / "weights.json").read_text())["ok"]


def test_a_report_is_strict_json_and_its_picture_is_of_the_same_run(
    source: Path, copy: Path, tmp_path: Path
) -> None:
    write(copy, f"{MATRIX}_scale", np.float32("nan").tobytes())
    without_manifest(copy)
    words = [f"--target={copy}", f"--out={tmp_path / 'out'}", "--all"]
    done = script("verify_weights.py", *words, f"--source={source}", code=1)
    assert "RuntimeWarning" not in done.stderr

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((tmp_path / "out" / "weights.json").read_text(), parse_constant=refuse)
    assert "nan" not in (tmp_path / "out" / "weights.svg").read_text()
    script("verify_weights.py", *words, code=1)
    assert not (tmp_path / "out" / "weights.svg").exists()


def test_findings_are_shown_before_an_engine_that_fails(made: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho Illegal instruction; exit 4\n')
    python.chmod(0o755)
    words = [f"--target={made}", "--loadable", f"--python={python}", f"--out={tmp_path / 'out'}"]
    done = script("verify_weights.py", *words, code=1)
    assert "compressed-tensors, 64 of 163 tensors int8, 7 files as made" in done.stdout
    assert "-1 B" not in done.stderr and "of 1 B" not in done.stderr
    assert "Illegal instruction" in done.stderr and "What to do" in done.stderr
    found = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert found["hashes"] == 7 and found["problems"] == [] and not found["ok"]
    assert "Illegal instruction" in found["loadable"]["error"]


def test_what_cannot_be_had_is_said_before_anything_is_read(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, what in (
        ([f"--out={tmp_path / 'file'}"], "name another folder with --out"),
        (["--loadable", "--python=/no/python"], "cannot import vllm"),
    ):
        # A target that does not exist would be told of next.
        done = script("verify_weights.py", "--target=/no/such", *words, code=2)
        assert what in done.stderr and "no such folder" not in done.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--target=/no/such"], "there is no such folder"),
        (["--target={source}"], "it is not converted"),
        (
            ["--target={made}", "--source=/no/such"],
            "name the checkpoint that the target was made of",
        ),
        (["--target={made}", "--rows=0"], "'0' is no whole number above 0"),
        (["--target={made}", "--rows=abc"], "'abc' is no whole number above 0"),
        (["--target={made}", "--loadable", "--python=/no/python"], "cannot import vllm"),
    ],
)
def test_wrong_input_is_refused(source: Path, made: Path, words: list[str], what: str) -> None:
    given = [word.format(source=source, made=made) for word in words]
    assert what in script("verify_weights.py", *given, code=2).stderr
