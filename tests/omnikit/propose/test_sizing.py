"""Layouts that are proposed, against those that upstreams publish for the same hosts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import recipes
from safetensors.numpy import load_file, save_file

from hostkit.checks import survey
from omnikit.config import config, layers
from omnikit.engine import tiny_model
from omnikit.plan.types import Plan
from omnikit.propose import proposal, sizing
from omnikit.propose.sizing import Layout, Machine, Refused
from omnikit.topology.topology import make_plan
from omnikit.yaml.strict_yaml import parse

A3 = Machine(16, 64.0)
FOREIGN = Path(__file__).parents[2] / "foreign"
# Of configs/models, the recipe that its settings are from.
RECIPES = {
    "deepseek-v3.1-w8a8": "DeepSeek_V3.1T_MTP1_PD",
    "glm-5.1-w8a8": "GLM5_1-W8A8-EP-external",
    "kimi-k2.6-w4a8": "Kimi-K2.6-W4A8-64k-1k-TPOT50-PD",
    "minimax-m2.5-w8a8": "MiniMax-PD-in32k-bs4-1",
    "qwen3-235b-w8a8": "QWEN3_235B_PD",
}
# omni-infer's own inventories and recordings of DeepSeek: hosts of prefill (one each), of decode.
OMNI_INFER = {3: (1, 2), 4: (2, 2), 8: (4, 4), 16: (8, 8), 36: (18, 18)}


def settings(model: str, engine: str = "", *, hosts: int = 1) -> config.Config:
    there = ", ".join(f"h{n}: {{address: 10.0.0.{n + 1}}}" for n in range(hosts))
    roles = ", ".join(f"{role}: [{{hosts: [h0]}}]" for role in ("prefill", "decode", "colocated"))
    known = yaml_sizing(model)
    text = (
        f"profile: {{model: {model}, engine: {engine or known[0]}, omni_version: {known[1]}}}\n"
        f"hosts: {{{there}}}\ntopology: {{{roles}}}\n"
    )
    return config.load("asked", environ={}, tree=parse(text, "asked", layers.ENVIRONMENT))


def yaml_sizing(model: str) -> tuple[str, str]:
    text = (layers.PROJECT / "configs" / "models" / f"{model}.yaml").read_text("utf-8")
    node = parse(text, model).at(("sizing",)).plain()
    return node["engine"], node["release"]


def laid_out(model: str, hosts: int, machine: Machine = A3) -> Layout | Refused:
    made = settings(model)
    size = proposal._size(made, "", {})
    return proposal._layout(made, size, machine, [f"h{n}" for n in range(hosts)])


def shapes(layout: Layout | Refused) -> list[tuple[str, int, int, int]]:
    """Role, hosts, ranks and tensor parallel size of each instance."""
    assert isinstance(layout, Layout), layout
    return [
        (role, group.shape.hosts, group.shape.ranks, group.shape.tensor_parallel)
        for role, group in layout.groups.items()
        for _ in group.hosts
    ]


def planned(plan: Plan) -> list[tuple[str, int, int, int]]:
    whole: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for node in plan.nodes:
        own = whole.setdefault((node.role, node.instance), [])
        own.append((node.dp_size, node.tensor_parallel))
    return [(role, len(own), *own[0]) for (role, _), own in whole.items()]


@pytest.mark.parametrize("model", RECIPES)
def test_on_as_many_hosts_as_a_recipe_has_its_layout_is_proposed(model: str) -> None:
    plan, _ = recipes.planned(RECIPES[model])
    assert shapes(laid_out(model, len(plan.hosts))) == planned(plan)


@pytest.mark.parametrize("hosts", OMNI_INFER)
def test_deepseek_is_split_over_hosts_as_omni_infer_does(hosts: int) -> None:
    prefill, decode = OMNI_INFER[hosts]
    wanted = [("prefill", 1, 1, 16)] * prefill + [("decode", decode, 16 * decode, 1)]
    assert shapes(laid_out("deepseek-r1-w8a8", hosts)) == wanted


def test_the_same_split_stands_in_omni_infers_inventories() -> None:
    for name, hosts in (("2P1D", 4), ("4P1D", 8)):
        file = FOREIGN / f"omni_infer_inventory_used_for_{name}.yml"
        plan = make_plan(config.load(str(file), environ={}))
        roles = [node.role for node in plan.nodes]
        assert len({node.host for node in plan.nodes}) == len(roles) == hosts
        assert (roles.count("prefill"), roles.count("decode")) == OMNI_INFER[hosts]


def test_a_published_layout_fits_by_our_own_reckoning() -> None:
    for model, name in RECIPES.items():
        made, (plan, _) = settings(model), recipes.planned(name)
        size, roles = proposal._size(made, "", {}), proposal.roles_of(made)
        for role, hosts, ranks, tensor in planned(plan):
            devices = ranks * tensor // hosts
            one = sizing.shape(size, roles[role], A3, hosts, devices, tensor)
            assert one.fits and one.weights and one.weights < 50, (model, one.said())


def test_a_host_with_half_as_many_devices_gets_the_sizes_of_upstreams_layout_for_it() -> None:
    small = Machine(8, 64.0)  # configs/environments/vllm-ascend-a2-pd.yaml
    assert shapes(laid_out("qwen3-235b-w8a8", 2, small)) == [
        ("prefill", 1, 1, 8),
        ("decode", 1, 8, 1),
    ]


def test_one_host_serves_what_fits_on_it() -> None:
    assert shapes(laid_out("qwen3-32b-w8a8", 1)) == [("colocated", 1, 4, 4)]
    assert shapes(laid_out("qwen3-8b", 1)) == [("colocated", 1, 16, 1)]
    assert shapes(laid_out("minimax-m2.5-w8a8", 1)) == [("prefill", 1, 2, 4), ("decode", 1, 2, 4)]


def test_too_few_hosts_are_told_how_many_it_takes_and_why() -> None:
    refused = laid_out("deepseek-r1-w8a8", 2)
    assert isinstance(refused, Refused) and refused.needed == 3
    assert "decode 2 hosts" in refused.why and "prefill needs 1 host" in refused.why


def test_devices_that_no_number_of_hosts_makes_large_enough() -> None:
    refused = laid_out("deepseek-r1-w8a8", 8, Machine(8, 16.0))
    assert isinstance(refused, Refused) and refused.needed is None


def test_every_host_has_work_whatever_their_number() -> None:
    for hosts in range(4, 20):
        layout = laid_out("glm-5.1-w8a8", hosts)
        used = sum(group.shape.hosts * len(group.hosts) for group in _groups(layout))
        assert used == hosts


def _groups(layout: Layout | Refused) -> list[sizing.Group]:
    assert isinstance(layout, Layout)
    return list(layout.groups.values())


# What models say of themselves: shapes of the published config.json of each.
CONFIGS = {
    "deepseek-r1-w8a8": {
        **{"num_hidden_layers": 61, "num_nextn_predict_layers": 1},
        **{"kv_lora_rank": 512, "qk_rope_head_dim": 64},
    },
    "deepseek-v3.2-w8a8": {
        **{"num_hidden_layers": 61, "num_nextn_predict_layers": 1, "index_head_dim": 128},
        **{"kv_lora_rank": 512, "qk_rope_head_dim": 64},
    },
    "glm-5.1-w8a8": {
        **{"num_hidden_layers": 78, "num_nextn_predict_layers": 1, "index_head_dim": 128},
        **{"kv_lora_rank": 512, "qk_rope_head_dim": 64},
    },
    "kimi-k2.6-w4a8": {
        "text_config": {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    },
    "minimax-m2.5-w8a8": {"num_hidden_layers": 62, "num_key_value_heads": 8, "head_dim": 128},
    "qwen3-235b-w8a8": {"num_hidden_layers": 94, "num_key_value_heads": 4, "head_dim": 128},
    "qwen3-32b-w8a8": {"num_hidden_layers": 64, "num_key_value_heads": 8, "head_dim": 128},
    "qwen3-8b": {"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128},
    "qwen2.5-7b": {
        **{"num_hidden_layers": 28, "num_key_value_heads": 4},
        **{"hidden_size": 3584, "num_attention_heads": 28},
    },
    "qwen2.5-0.5b": {
        **{"num_hidden_layers": 24, "num_key_value_heads": 2},
        **{"hidden_size": 896, "num_attention_heads": 14},
    },
}


@pytest.mark.parametrize("model", CONFIGS)
def test_the_kv_of_a_token_is_what_follows_from_the_models_own_configuration(model: str) -> None:
    known = settings(model).settings.sizing
    kib, heads = sizing.kv_kib(CONFIGS[model])
    assert kib == pytest.approx(known.kv_kib_per_token, rel=0.005)
    assert heads == known.kv_heads


def test_a_tiny_models_sizes_are_those_of_its_tensors_and_of_a_real_engines_cache(
    tmp_path: Path,
) -> None:
    for name, data in tiny_model.build(0).items():
        (tmp_path / name).write_bytes(data)
    found = survey.sizes(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert found["bytes"] == sum(tensor.nbytes for tensor in tensors.values())
    assert (found["experts"], found["problem"]) == (0, None)
    kib, heads = sizing.kv_kib(found["config"])
    known = settings("tiny-qwen2").settings
    assert (kib, heads) == (known.sizing.kv_kib_per_token, known.sizing.kv_heads)
    # What vLLM 0.32 on CPU said of this model and this setting.
    said = (Path(__file__).parents[2] / "facts" / "logs" / "healthy" / "server.log").read_text()
    tokens = re.search(r"CPU KV cache size: ([\d,]+) tokens", said)
    told = known.server.args["kv-cache-memory-bytes"]
    assert tokens and kib
    assert int(tokens[1].replace(",", "")) == int(told) / 1024 / kib  # type: ignore[call-overload]


def test_experts_are_told_by_the_names_of_tensors(tmp_path: Path) -> None:
    made = {
        "model.layers.0.mlp.experts.0.up_proj.weight": np.zeros((4, 8), np.int8),
        "model.layers.0.mlp.shared_experts.up_proj.weight": np.zeros((4, 8), np.int8),
    }
    save_file(made, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3"}')
    found = survey.sizes(tmp_path)
    assert (found["bytes"], found["experts"]) == (64, 32)


def test_weights_that_are_not_whole_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": np.zeros(4, np.int8)}, tmp_path / "model-1.safetensors")
    assert "1 of its files are missing" in survey.sizes(tmp_path)["problem"]
