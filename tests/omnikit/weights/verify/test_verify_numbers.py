"""Numbers against the source's: destroyed ones are found, whatever scale stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import converted_case as case
import numpy as np
import pytest
from converted_case import MATRIX, Tensors

from omnikit.weights.loadable import small_deepseek as small
from omnikit.weights.verify import numbers as verify_numbers

pytestmark = pytest.mark.slow

# Values of the size that trained ones have: far below 1, so that zeros are near them in steps of 1.
SIZE = np.float32(0.1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small.make()
    for name, (dtype, array) in made.tensors.items():
        if name.endswith("_scale_inv"):
            made.tensors[name] = (dtype, array * SIZE)
    return made.write(tmp_path_factory.mktemp("numbers") / "source")


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    return case.convert(source, source.with_name("made"))


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return case.copy(made, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.7.mlp.experts.12.up_proj.weight", "mlp.experts.up_proj"),
        ("model.layers.61.self_attn.q_a_proj.weight", "self_attn.q_a_proj"),
        ("lm_head.weight", "lm_head"),
        ("model.layers.3.mlp.gate.e_score_correction_bias", "mlp.gate"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert verify_numbers.kind_of(name) == kind


def test_a_sample_has_both_ends() -> None:
    assert verify_numbers.spread(range(100), 3) == [0, 50, 99]
    assert verify_numbers.spread([1, 2], 5) == verify_numbers.spread([1, 2], None) == [1, 2]


def test_what_was_converted_is_good(source: Path, made: Path) -> None:
    for sample in ((8, 64), (1, 1), None):
        assert case.verified(made, source, sample=sample)["ok"]


def _zeros(q: Any, scale: Any) -> tuple[Any, Any]:
    return q * 0, scale * 0 + 1


def _no_scales(q: Any, scale: Any) -> tuple[Any, Any]:
    return q, scale * 0


def _coarse(q: Any, scale: Any) -> tuple[Any, Any]:
    return np.rint(q / 64), scale * 64


def _negative(q: Any, scale: Any) -> tuple[Any, Any]:
    return -q, -scale


@pytest.mark.parametrize("spoil", [_zeros, _no_scales, _coarse, _negative])
@pytest.mark.parametrize("form", ["compressed-tensors", "msmodelslim"])
def test_destroyed_weights_are_found(
    source: Path, copy: Path, spoil: Callable[[Any, Any], tuple[Any, Any]], form: str
) -> None:
    """Integers and scales that fit each other, but not the source."""

    def all_of_them(tensors: Tensors) -> None:
        for name in [one for one in tensors if f"{one}_scale" in tensors]:
            scale = tensors[f"{name}_scale"][1]
            q, scale = spoil(tensors[name][1].astype(np.float32), scale)
            tensors[name] = ("I8", q.astype(np.int8))
            tensors[f"{name}_scale"] = ("F32", scale.astype(np.float32))

    case.rewrite(copy, all_of_them)
    if form == "msmodelslim":
        case.as_msmodelslim(copy)
    found = case.verified(copy, source)
    quantised = [kind for kind in found["kinds"] if kind["what"] == "quantised"]
    assert found["form"] == form and len(quantised) == 13
    for kind in quantised:
        assert not kind["ok"] and kind["wrong_scales"] == kind["scales"] > 0
        assert "a scale that the formula does not give: model.layers." in kind["problems"][0]
        assert ": row 0 has " in kind["problems"][0]


def test_one_wrong_scale_in_a_row_outside_of_the_sample_is_found(source: Path, copy: Path) -> None:
    scales = _scales(copy)
    case.write(copy, f"{MATRIX}_scale", (scales[3] * np.float32(1.05)).tobytes(), 3 * 4)
    case.without_manifest(copy)
    found = case.verified(copy, source, sample=(12, 4))
    (problem,) = found["all"]
    assert f"the formula does not give: {MATRIX}: row 3 has " in problem


def _scales(folder: Path) -> Any:
    tensor = case.headers.read(folder).tensors[f"{MATRIX}_scale"]
    data = (folder / tensor.file).read_bytes()[tensor.start : tensor.end]
    return np.frombuffer(data, np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_found_and_spoils_no_sum(
    source: Path, copy: Path, value: float
) -> None:
    case.write(copy, f"{MATRIX}_scale", np.float32(value).tobytes())
    case.without_manifest(copy)
    found = case.verified(copy, source, sample=None)
    assert any(f"{MATRIX}: row 0 has {np.float32(value):.6g}" in text for text in found["all"])
    for kind in found["kinds"]:
        assert np.isfinite([kind["max_error_steps"], kind["mean_error_steps"]]).all()


def test_a_row_of_zeros_has_scale_1_and_in_the_other_form_any(tmp_path: Path) -> None:
    model = small.make()
    model.tensors[MATRIX][1][5] = 0
    source = model.write(tmp_path / "source")
    target = case.convert(source, tmp_path / "target")
    assert _scales(target)[5] == 1 and case.verified(target, source)["ok"]
    case.write(target, f"{MATRIX}_scale", np.float32(1e-8).tobytes(), 5 * 4)
    case.without_manifest(target)
    assert f"{MATRIX}: row 5 has 1e-08, expected 1" in case.verified(target, source)["all"][0]
    assert case.verified(case.as_msmodelslim(target), source, sample=None)["ok"]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_scales_of_msmodelslim_may_have_16_bits(source: Path, copy: Path, dtype: str) -> None:
    case.as_msmodelslim(copy)

    def rounded(tensors: Tensors) -> None:
        for name in [one for one in tensors if one.endswith("_scale")]:
            scale = tensors[name][1]
            as_f16 = scale.astype(np.float16)
            array = {"BF16": small.bf16(scale), "F16": as_f16, "F32": scale}[dtype]
            tensors[name] = (dtype, array)

    case.rewrite(copy, rounded)
    found = case.verified(copy, source, sample=None)
    assert found["form"] == "msmodelslim" and found["all"] == []
    bounds = {kind["bound"] for kind in found["kinds"] if kind["bound"]}
    assert len(bounds) == 1 and 0.99 < bounds.pop() < 1.6


def test_a_matrix_that_stayed_bf16_is_compared(source: Path, copy: Path) -> None:
    """msmodelslim's description may keep any matrix in bf16."""
    case.as_msmodelslim(copy)
    model = small.make().tensors
    right = small.widened(model[MATRIX][1], model[f"{MATRIX}_scale_inv"][1] * SIZE, (128, 128))

    def keep(value: Any) -> Callable[[Tensors], None]:
        def change(tensors: Tensors) -> None:
            if MATRIX in tensors:
                tensors[MATRIX] = ("BF16", value)
                tensors.pop(f"{MATRIX}_scale", None)
                tensors.pop(f"{MATRIX}_offset", None)

        return change

    case.rewrite(copy, keep(small.bf16(right)))
    case.describe(copy)
    assert case.verified(copy, source, sample=None)["all"] == []
    case.rewrite(copy, keep(small.bf16(right[::-1])))
    found = case.verified(copy, source, sample=None)
    assert found["all"] == [f"not equal to the source: {MATRIX}: row 0"]


def test_a_tensor_that_numpy_has_no_numbers_for_is_no_traceback(source: Path, copy: Path) -> None:
    """float64, and a scale that is a row short: the structure's problems."""

    def change(tensors: Tensors) -> None:
        if "model.norm.weight" in tensors:
            tensors["model.norm.weight"] = ("F32", np.zeros(512, np.float32))
        if f"{MATRIX}_scale" in tensors:
            tensors[f"{MATRIX}_scale"] = ("F32", tensors[f"{MATRIX}_scale"][1][:-1])

    case.rewrite(copy, change)
    shard = copy / case.headers.read(copy).tensors["model.norm.weight"].file
    head = b'"model.norm.weight":{"dtype":"F32","shape":[512]'
    data = shard.read_bytes()
    assert head in data
    shard.write_bytes(data.replace(head, head.replace(b"F32", b"F64").replace(b"512", b"256")))
    found = case.verified(copy, source, sample=None)
    assert "model.norm.weight has dtype F64, expected BF16" in found["all"]
    assert f"{MATRIX}_scale is F32 [127, 1], expected F32 or BF16 or F16 [128, 1]" in found["all"]
    assert any("int8 without a scale for each row" in text for text in found["all"])
