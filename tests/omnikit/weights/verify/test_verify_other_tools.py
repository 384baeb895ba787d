"""Numbers that another tool made are judged by how near they are to the source, as far as their
format lets them; what a step in bf16 on the way has cost is measured and said.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable, Optional

import converted_case as case
import numpy as np
import pytest
from converted_case import MATRIX, Tensors

from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow

MODEL = small.make()
# (value, scale) of float32 rows: what a tool keeps of them: integers, scales.
Tool = Callable[[Any], tuple[Any, Any]]


def low(value: Any) -> Any:
    """As bf16 has it."""
    return small.from_bf16(small.bf16(value))


def top(value: Any) -> Any:
    return np.abs(value).max(axis=1, keepdims=True)


def rounded(steps: Any, least: int = -128) -> Any:
    return np.clip(np.rint(steps), least, 127).astype(np.int8)


def two_steps(value: Any) -> tuple[Any, Any]:
    """FP8 to bf16 on disk, then all of it in bf16, as omni-infer's own converter does."""
    scale = low(top(low(value)) / np.float32(127))
    return rounded(low(low(value) / scale), -127), scale


def library(value: Any) -> tuple[Any, Any]:
    """compressed-tensors: -128 is used, and 127.5 steps are the largest value."""
    scale = low(top(low(value)) / np.float32(127.5))
    return rounded(low(low(value) / scale)), scale


def to_127_5(value: Any) -> tuple[Any, Any]:
    scale = top(value) / np.float32(127.5)
    return rounded(value / scale), scale


def to_127_5_in_bf16(value: Any) -> tuple[Any, Any]:
    scale = low(top(value) / np.float32(127.5))
    return rounded(value / scale), scale


def exact(value: Any) -> tuple[Any, Any]:
    scale = top(value) / np.float32(127)
    return rounded(value / scale), scale


def scale_cast_after(value: Any) -> tuple[Any, Any]:
    """Integers for another scale than the one that is kept."""
    integers, scale = exact(value)
    return integers, low(scale)


def one_off(value: Any) -> tuple[Any, Any]:
    integers, scale = library(value)
    integers[3, 7] += 4 if integers[3, 7] < 100 else -4
    return integers, scale


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("others") / "source")


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    return case.convert(source, source.with_name("made"))


def judged(made: Path, source: Path, to: Path, tool: Tool, dtype: str) -> dict[str, Any]:
    """Verified, after another tool has made the integers of it."""

    def change(tensors: Tensors) -> None:
        for name in [one for one in tensors if f"{one}_scale" in tensors]:
            factors = MODEL.tensors[f"{name}_scale_inv"][1]
            value = small.widened(MODEL.tensors[name][1], factors, (128, 128))
            integers, scale = tool(value)
            kept = {"BF16": small.bf16, "F16": np.float16, "F32": np.float32}[dtype](scale)
            tensors.update({name: ("I8", integers), f"{name}_scale": (dtype, kept)})

    case.rewrite(case.copy(made, to), change)
    found = case.verified(to, source, sample=None)
    assert found["problems"] == []
    found["notes"] = [text for one in found["kinds"] for text in one["notes"]]
    found["largest"] = max(one["max_error_steps"] for one in found["kinds"])
    return found


TWO_STEPS = "makes just these (two steps: to bf16, then to int8)"


@pytest.mark.parametrize(
    ("tool", "dtype", "most"),
    [(exact, "F32", 0.5001), (to_127_5, "F32", 0.5001), (to_127_5_in_bf16, "F32", 1.0)],
)
def test_the_nearest_integers_of_any_scale_are_good(
    source: Path, made: Path, tmp_path: Path, tool: Tool, dtype: str, most: float
) -> None:
    found = judged(made, source, tmp_path / "m", tool, dtype)
    assert found["ok"] and found["notes"] == [] and found["largest"] <= most
    for kind in found["kinds"]:
        assert kind["not_nearest"] == 0


@pytest.mark.parametrize(
    ("tool", "why"), [(library, TWO_STEPS), (two_steps, TWO_STEPS), (scale_cast_after, None)]
)
def test_what_16_bits_cost_is_a_note(
    source: Path, made: Path, tmp_path: Path, tool: Tool, why: Optional[str]
) -> None:
    found = judged(made, source, tmp_path / "m", tool, "BF16")
    assert found["ok"] and 0.6 < found["largest"] < 2
    (note,) = [text for text in found["notes"] if text.startswith("mlp.experts.up_proj: ")]
    assert "% of the integers are not the nearest" in note and "relative error 0.007" in note
    assert (TWO_STEPS in note) == (why is not None)
    kind = next(one for one in found["kinds"] if one["kind"] == "mlp.experts.up_proj")
    assert 0.005 < kind["not_nearest"] < 0.3
    assert kind["nearest_relative_rms_error"] < kind["relative_rms_error"]


@pytest.mark.parametrize(("tool", "why"), [(two_steps, TWO_STEPS), (scale_cast_after, None)])
def test_where_the_format_holds_the_exact_scale_it_is_a_finding(
    source: Path, made: Path, tmp_path: Path, tool: Tool, why: Optional[str]
) -> None:
    """The measured error says it, not how anything is spelt: the same files but for the numbers."""
    found = judged(made, source, tmp_path / "m", tool, "F32")
    assert not found["ok"] and 0.6 < found["largest"] < 2
    coarse = [text for text in found["all"] if "% of the integers are not the nearest" in text]
    assert len(coarse) == 13
    assert all((TWO_STEPS in text) == (why is not None) for text in coarse)


def test_one_wrong_integer_among_coarse_ones_is_found(
    source: Path, made: Path, tmp_path: Path
) -> None:
    found = judged(made, source, tmp_path / "m", one_off, "BF16")
    assert not found["ok"] and "steps, at most 2.0000 expected" in found["all"][0]


def test_an_integer_beside_the_nearest_is_found_where_a_largest_value_is_farther_off(
    source: Path, made: Path, tmp_path: Path
) -> None:
    """A scale for 127.5 steps that was rounded down leaves up to a step beyond 127."""

    def one_beside(value: Any) -> tuple[Any, Any]:
        integers, scale = to_127_5_in_bf16(value)
        part = np.where(np.abs(integers) < 99, value / scale - integers, 0)
        integers[np.unravel_index(np.abs(part - 0.4).argmin(), part.shape)] += 1
        return integers, scale

    found = judged(made, source, tmp_path / "m", one_beside, "F32")
    assert not found["ok"] and found["largest"] > 0.7
    assert any(text.startswith("mlp.experts.up_proj: ") for text in found["all"])


def test_msmodelslims_numbers_are_judged_alike_in_both_formats(
    source: Path, made: Path, tmp_path: Path
) -> None:
    """It opens FP8 to bf16; a repacked checkpoint's manifest tells whose numbers they are."""

    def slim(value: Any) -> tuple[Any, Any]:
        return exact(low(value))

    judged(made, source, tmp_path / "m", slim, "F32")
    folder = case.as_msmodelslim(tmp_path / "m")
    found = case.verified(folder, source, sample=None)
    assert found["ok"] and found["form"] == "msmodelslim"
    again = case.convert(folder, tmp_path / "again")
    told = json.loads((again / "omnikit-weights.json").read_text())
    assert (told["form"], told["numbers"]) == ("compressed-tensors", "msmodelslim")
    found = case.verified(again, source, sample=None)
    assert found["ok"] and found["form"] == "compressed-tensors", found["all"]


_LIBRARY = """
import sys
import numpy as np, torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
args = QuantizationArgs(num_bits=8, symmetric=True, strategy="channel")
words, made = np.load(sys.argv[1]), {}
for name in words.files:
    value = torch.from_numpy(words[name].view(np.int16)).view(torch.bfloat16)
    least, most = value.amin(1, keepdim=True), value.amax(1, keepdim=True)
    scale, zero = calculate_qparams(least, most, args)
    integers = quantize(value, scale, zero, args, dtype=torch.int8)
    made[name] = integers.numpy()
    made[name + "_scale"] = scale.view(torch.int16).numpy().view(np.uint16)
np.savez(sys.argv[2], **made)
"""


def test_what_the_library_itself_computes_is_good(
    tmp_path: Path, engine_python: Path, source: Path, made: Path
) -> None:
    """llm-compressor's arithmetic is this library's; with a row of zeros."""
    model = small.make()
    model.tensors[MATRIX][1][5] = 0
    source = model.write(tmp_path / "source")
    words = {
        name: small.bf16(small.widened(array, model.tensors[f"{name}_scale_inv"][1], (128, 128)))
        for name, (dtype, array) in model.tensors.items()
        if dtype == "F8_E4M3" and "kv_b_proj" not in name
    }
    np.savez(tmp_path / "in.npz", **words)
    argv = [str(engine_python), "-c", _LIBRARY, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "out.npz")
    assert min(int(theirs[name].min()) for name in words) == -128

    def change(tensors: Tensors) -> None:
        for name in tensors.keys() & words.keys():
            tensors[name] = ("I8", theirs[name])
            tensors[f"{name}_scale"] = ("BF16", theirs[f"{name}_scale"])

    copy = case.copy(made, tmp_path / "copy")
    case.rewrite(copy, change)
    case.edit_json(copy / "config.json", _spelt_otherwise)
    found = case.verified(copy, source, sample=None)
    assert found["ok"], found["all"]
    notes = [text for one in found["kinds"] for text in one["notes"]]
    assert len(notes) == 13 and all(TWO_STEPS in text for text in notes)


def _spelt_otherwise(config: dict[str, Any]) -> None:
    """As llm-compressor names things."""
    told = config["quantization_config"]
    told["config_groups"] = {"W8A8": told["config_groups"]["group_0"]}
    told["ignore"] = ["lm_head", "re:.*kv_b_proj$"]
