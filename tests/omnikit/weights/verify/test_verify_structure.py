"""Files, names, dtypes and descriptions of a converted checkpoint, without its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import converted_case as case
import numpy as np
import pytest
from converted_case import DESCRIPTION, MATRIX, Tensors

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import headers
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow

SHARD = "quant_model_weight_w8a8_dynamic-00002-of-000003.safetensors"
KV_B = "model.layers.1.self_attn.kv_b_proj.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.make().write(tmp_path_factory.mktemp("structure") / "source")


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    return case.convert(source, source.with_name("made"))


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return case.copy(made, tmp_path / "copy")


@pytest.fixture
def slim(copy: Path) -> Path:
    return case.as_msmodelslim(copy)


def _cut(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-5])


def _no_header(folder: Path) -> None:
    (folder / SHARD).write_bytes(b"<html>" * 99)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / SHARD).unlink(), "is missing"),
        (_cut, "the file is cut"),
        (_no_header, "is no safetensors file, or cut"),
    ],
)
@pytest.mark.parametrize("form", ["compressed-tensors", "msmodelslim"])
def test_a_damaged_file_is_a_problem_and_the_rest_is_verified(
    source: Path, copy: Path, damage: Callable[[Path], None], what: str, form: str
) -> None:
    case.without_manifest(copy)
    if form == "msmodelslim":
        case.as_msmodelslim(copy)
    damage(copy)
    for origin in (source, None):
        found = case.verified(copy, origin)
        (problem,) = found["all"]
        assert problem.startswith(SHARD) and what in problem
        assert found["form"] == form and "download" not in found["todo"]
        assert "copy" in found["todo"] and "invoke convert-weights" in found["todo"]


def test_an_unreadable_config_is_a_problem(source: Path, copy: Path) -> None:
    case.without_manifest(copy)
    (copy / "config.json").unlink()
    assert case.verified(copy, source)["all"] == ["config.json is missing"]
    assert case.verified(copy)["all"] == ["config.json is missing"]


@pytest.mark.parametrize("form", ["compressed-tensors", "msmodelslim"])
def test_a_stray_file_is_a_problem_without_a_manifest_too(
    source: Path, copy: Path, form: str
) -> None:
    case.without_manifest(copy)
    if form == "msmodelslim":
        case.as_msmodelslim(copy)
    (copy / "model-00001-of-000003.safetensors").write_bytes(b"x")
    found = case.verified(copy, source)
    (problem,) = found["all"]
    assert problem.startswith("model-00001-of-000003.safetensors does not belong here")
    assert found["todo"] == "move the files that do not belong here away"


def test_a_scale_belongs_to_an_int8_matrix_only(source: Path, copy: Path) -> None:
    def leftover(tensors: Tensors) -> None:
        if KV_B in tensors:
            tensors[f"{KV_B}_scale"] = ("F32", np.ones((1024, 1), np.float32))

    case.rewrite(copy, leftover)
    assert case.verified(copy, source)["all"] == [f"{KV_B}_scale belongs to no part of this model"]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_every_scale_is_looked_at_without_a_source(copy: Path, value: float) -> None:
    case.write(copy, f"{MATRIX}_scale", np.float32(value).tobytes(), 77 * 4)
    case.without_manifest(copy)
    (problem,) = case.verified(copy)["all"]
    assert problem.startswith(f"{MATRIX}_scale: row 77 is {value:.6g}, expected a number above 0")


def test_msmodelslims_form_is_good_under_its_own_name_for_the_index(
    source: Path, slim: Path
) -> None:
    assert not (slim / headers.INDEX).exists()
    for origin in (source, None):
        found = case.verified(slim, origin)
        assert found["ok"] and found["form"] == "msmodelslim" and found["tensors"] == 227


def test_several_indexes_are_refused_by_name(slim: Path) -> None:
    (slim / "other.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(InputError, match=r"other\.safetensors\.index\.json, quant_model") as caught:
        case.verified(slim)
    assert caught.value.todo


def test_an_offset_is_zero(source: Path, slim: Path) -> None:
    case.write(slim, f"{MATRIX}_offset", np.float32(5).tobytes(), 4)
    problem = f"{MATRIX}_offset: row 1 is 5, expected 0: rows are symmetric"
    assert case.verified(slim, source)["all"] == case.verified(slim)["all"] == [problem]


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        (MATRIX, "FLOAT", "but it is int8"),
        (MATRIX, "W8A8", "W8A8_DYNAMIC"),
        ("model.norm.weight", "W8A8_DYNAMIC", "but it is BF16"),
        (KV_B, "W8A8_DYNAMIC", "but it is BF16"),
    ],
)
def test_the_description_says_what_is_there(
    source: Path, slim: Path, name: str, kind: str, what: str
) -> None:
    case.edit_json(slim / DESCRIPTION, lambda told: told.update({name: kind}))
    (problem,) = case.verified(slim, source)["all"]
    assert problem.startswith(f"{DESCRIPTION} calls {name} {kind}, but") and what in problem


def _unfinished(told: dict[str, Any]) -> None:
    told.update(architectures="DeepseekV3Fusion", num_hidden_layers=4)


def test_an_unfinished_folder_is_to_be_finished(source: Path, slim: Path) -> None:
    case.edit_json(slim / "config.json", _unfinished)
    for origin in (source, None):
        found = case.verified(slim, origin)
        assert all("run finish_checkpoint.py" in problem for problem in found["all"])
        assert found["todo"].startswith(f"invoke finish-checkpoint --dir {slim}")
    case.edit_json(
        slim / "config.json", lambda told: told.update(architectures=["DeepseekV3ForCausalLM"])
    )
    (problem,) = case.verified(slim, source)["all"]
    assert "num_hidden_layers is 4, expected 3 as in the source: run finish_checkpoint" in problem


def test_the_sources_quantisation_is_not_left_over(source: Path, slim: Path) -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    case.edit_json(slim / "config.json", lambda told: told.update(quantization_config=fp8))
    (problem,) = case.verified(slim, source)["all"]
    assert "quantization_config is the source's (fp8)" in problem


def _group(told: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = told["quantization_config"]["config_groups"]["group_0"][part]
    return found


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda told: _group(told, "weights").update(num_bits=4), "weights.num_bits is 4"),
        (lambda told: _group(told, "weights").update(strategy="tensor"), "weights.strategy is"),
        (lambda told: _group(told, "weights").update(dynamic=True), "weights.dynamic is True"),
        (lambda told: _group(told, "weights").update(group_size=128), "group_size is 128"),
        (lambda told: _group(told, "input_activations").pop("dynamic"), "dynamic is False"),
        (lambda told: told["quantization_config"].update(kv_cache_scheme={"a": 1}), "kv_cache"),
        (lambda told: told["quantization_config"].pop("config_groups"), "config_groups is None"),
        (lambda told: told.update(num_hidden_layers=4), "num_hidden_layers is 4, expected 3"),
        (lambda told: told.update(routed_scaling_factor=1.0), "routed_scaling_factor is 1.0"),
    ],
)
def test_the_whole_configuration_is_compared(
    source: Path, copy: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    case.without_manifest(copy)
    case.edit_json(copy / "config.json", change)
    (problem,) = case.verified(copy, source)["all"]
    assert problem.startswith("config.json: ") and what in problem


def test_what_is_null_or_says_nothing_may_be_left_out(source: Path, copy: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        for part in ("weights", "input_activations"):
            for name in ("actorder", "block_structure", "group_size", "observer_kwargs"):
                del _group(told, part)[name]
        _group(told, "weights").pop("dynamic")  # false
        quantisation = told["quantization_config"]
        del quantisation["kv_cache_scheme"], quantisation["global_compression_ratio"]
        quantisation.update(version="0.9.4", sparsity_config={})
        quantisation["ignore"].reverse()

    case.without_manifest(copy)
    case.edit_json(copy / "config.json", change)
    assert case.verified(copy, source)["ok"] and case.verified(copy)["ok"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"files": {"config.json": {}}}', "omnikit-weights.json has no hash of config.json"),
        ('{"files": {"config.json": 1}}', "omnikit-weights.json has no hash of config.json"),
        ('{"files": []}', "omnikit-weights.json has no list of files"),
        *(
            (f'{{"files": {{"{name}": 1}}}}', "omnikit-weights.json names ")
            for name in ("../x", "a" * 300, "a\\u0000", "\\ud800", "..")
        ),
        ("{", "omnikit-weights.json cannot be read"),
    ],
)
def test_a_damaged_manifest_is_a_problem(copy: Path, text: str, what: str) -> None:
    (copy / "omnikit-weights.json").write_text(text)
    found = case.verified(copy)
    assert found["problems"][0].startswith(what) and found["hashes"] == 0
    assert json.dumps(found)
