"""What becomes of each tensor, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostkit.base.errors import InputError, ManyErrors
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.w8a8 import COPY, QUANTISE, WIDEN
from omnikit.weights.loadable import small_deepseek as small

pytestmark = pytest.mark.slow


def planned(made: small.Small, folder: Path) -> w8a8.Conversion:
    return w8a8.plan(headers.read(made.write(folder)))


def actions(conversion: w8a8.Conversion) -> dict[str, str]:
    return {p.source.name: p.what for shard in conversion.shards for p in shard.pieces}


def test_quantised_is_what_has_block_scales_save_kv_b_proj(tmp_path: Path) -> None:
    made = small.make()
    found = actions(planned(made, tmp_path / "m"))
    for name, (dtype, _) in made.tensors.items():
        if name.endswith("_scale_inv"):
            assert name not in found
        elif dtype != "F8_E4M3":
            assert found[name] == COPY
        else:
            assert found[name] == (WIDEN if "kv_b_proj" in name else QUANTISE)
    assert found["model.layers.3.mlp.experts.0.up_proj.weight"] == QUANTISE  # MTP


def test_a_bf16_source_has_the_same_matrices_quantised(tmp_path: Path) -> None:
    fp8 = actions(planned(small.make(), tmp_path / "a"))
    bf16 = actions(planned(small.make(block=None), tmp_path / "b"))
    assert {name for name, what in fp8.items() if what == QUANTISE} == {
        name for name, what in bf16.items() if what == QUANTISE
    }
    assert WIDEN not in bf16.values()


def test_names_index_and_configuration_of_the_result(tmp_path: Path) -> None:
    found = planned(small.make(), tmp_path / "m")
    names = [shard.name for shard in found.shards]
    assert names[0] == "quant_model_weight_w8a8_dynamic-00001-of-000003.safetensors"
    index = found.index()
    assert set(index["weight_map"].values()) == set(names)
    assert not [name for name in index["weight_map"] if name.endswith("_scale_inv")]
    assert "model.layers.0.mlp.up_proj.weight_scale" in index["weight_map"]
    told = found.config["quantization_config"]
    assert told["ignore"] == [f"model.layers.{i}.self_attn.kv_b_proj" for i in range(4)]
    assert (told["quant_method"], told["format"]) == ("compressed-tensors", "int-quantized")
    group = told["config_groups"]["group_0"]
    assert group["targets"] == ["Linear"] and group["output_activations"] is None
    assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
    activations = group["input_activations"]
    assert (activations["strategy"], activations["dynamic"]) == ("token", True)
    assert found.config["hidden_size"] == small.CONFIG["hidden_size"]


def test_a_checkpoint_that_was_prepared_for_msmodelslim_is_fp8_still(tmp_path: Path) -> None:
    folder = small.make().write(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    assert w8a8.plan(headers.read(folder)).block == (128, 128)


def _quantisation(**changes: Any) -> dict[str, Any]:
    return {"quantization_config": {**small.QUANTISATION, **changes}}


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "Qwen2ForCausalLM"),
        ({"architectures": None}, "found architectures None, expected"),
        ({"architectures": "DeepseekV3ForCausalLM"}, "found architectures 'Deep"),
        ({"architectures": [{}]}, "found architectures"),
        ({"num_hidden_layers": "3"}, "found num_hidden_layers '3'"),
        ({"hidden_size": None}, "is missing or no number"),
        ({"quantization_config": ["fp8"]}, "expected a map"),
        (_quantisation(quant_method="awq"), "'awq'"),
        (_quantisation(fmt="e5m2"), "'e5m2'"),
        (_quantisation(weight_block_size=None), "weight_block_size None"),
        (_quantisation(weight_block_size=[128, 0]), "weight_block_size"),
        (_quantisation(weight_block_size=[64, 128]), r"expected F32 \[4, 4\]|expected F32"),
    ],
)
def test_other_models_and_quantisations_are_refused(
    tmp_path: Path, config: dict[str, Any], what: str
) -> None:
    folder = small.make().write(tmp_path / "m")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **config}))
    with pytest.raises(InputError, match=what):
        w8a8.plan(headers.read(folder))


def test_a_scale_that_is_missing_or_left_over_is_named(tmp_path: Path) -> None:
    made = small.make()
    lost = "model.layers.1.self_attn.o_proj.weight_scale_inv"
    del made.tensors[lost]
    with pytest.raises(InputError, match=f"no {lost}"):
        planned(made, tmp_path / "a")
    made = small.make()
    made.tensors["model.layers.1.extra.weight_scale_inv"] = ("F32", np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="a block scale without its matrix"):
        planned(made, tmp_path / "b")


def test_layers_experts_and_files_that_are_missing_are_named(tmp_path: Path) -> None:
    made = small.make()
    lost = [name for name in made.tensors if name.startswith("model.layers.2.")]
    for name in lost:
        del made.tensors[name]
    with pytest.raises(
        InputError, match=r"layers\.2\.\S+ is missing, and \d+ more of .*layers\.2\."
    ):
        planned(made, tmp_path / "layer")
    made = small.make(n_routed_experts=4)
    made.config["n_routed_experts"] = 5
    with pytest.raises(ManyErrors) as caught:
        planned(made, tmp_path / "expert")
    assert "model.layers.1.mlp.experts.4.down_proj.weight is missing" in str(caught.value.errors[0])


def test_a_model_without_its_mtp_layer_is_told_which_setting_says_so(tmp_path: Path) -> None:
    made = small.make()
    made.config["num_nextn_predict_layers"] = 2
    with pytest.raises(InputError, match=r"layers\.4\.") as caught:
        planned(made, tmp_path / "two")
    assert "num_nextn_predict_layers 0" in str(caught.value.todo)
    made = small.make()
    for name in ("embed_tokens", "shared_head.head"):  # the main model has them too
        del made.tensors[f"model.layers.3.{name}.weight"]
    assert planned(made, tmp_path / "shared").shards


def test_a_file_that_the_index_does_not_name_is_told(tmp_path: Path) -> None:
    folder = small.make().write(tmp_path / "m", shards=2)
    index = folder / headers.INDEX
    told = json.loads(index.read_text())["weight_map"]
    second = "model-00002-of-000002.safetensors"
    kept = {name: file for name, file in told.items() if file != second}
    index.write_text(json.dumps({"weight_map": kept}))
    with pytest.raises(ManyErrors) as caught:
        w8a8.plan(headers.read(folder))
    assert f"the index does not name {second}" in str(caught.value.errors[0].todo)


def test_a_matrix_that_is_bf16_already_stays_so_and_is_said_to_be(tmp_path: Path) -> None:
    made, name = small.make(), "model.layers.1.self_attn.o_proj"
    made.tensors[f"{name}.weight"] = small.opened(made).tensors[f"{name}.weight"]
    with pytest.raises(InputError, match="a block scale of a matrix that is BF16"):
        planned(made, tmp_path / "with its scale")
    del made.tensors[f"{name}.weight_scale_inv"]
    found = planned(made, tmp_path / "m")
    assert actions(found)[f"{name}.weight"] == COPY
    assert name in found.config["quantization_config"]["ignore"]


def test_scales_of_a_result_among_matrices_of_a_source_are_refused(tmp_path: Path) -> None:
    made, name = small.make(), "model.layers.1.self_attn.o_proj.weight"
    made.tensors[f"{name}_scale"] = ("F32", np.ones((256, 1), np.float32))
    with pytest.raises(InputError, match=f"there is {name}_scale already"):
        planned(made, tmp_path / "m")


def test_a_matrix_without_rows_is_refused(tmp_path: Path) -> None:
    made, name = small.make(), "model.layers.1.self_attn.o_proj.weight"
    made.tensors[name] = ("F8_E4M3", np.empty((0, 512), np.uint8))
    with pytest.raises(InputError, match=r"found shape \[0, 512\], expected a matrix"):
        planned(made, tmp_path / "m")


def test_a_model_already_converted_is_refused(tmp_path: Path) -> None:
    made = small.make(block=None)
    made.config["quantization_config"] = {"quant_method": "compressed-tensors"}
    with pytest.raises(InputError, match="compressed-tensors"):
        planned(made, tmp_path / "m")
