"""The tensors of a model, as DeepSeek's modeling_deepseek.py and README_WEIGHTS.md have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import architecture
from omnikit.weights.loadable.small_deepseek import CONFIG

# Of CONFIG's sizes: 4 heads of 128 + 64, q of rank 192, kv of rank 512, one dense layer.
ATTENTION = {
    "input_layernorm": (256,),
    "post_attention_layernorm": (256,),
    "self_attn.q_a_proj": (192, 256),
    "self_attn.q_a_layernorm": (192,),
    "self_attn.q_b_proj": (4 * 192, 192),
    "self_attn.kv_a_proj_with_mqa": (512 + 64, 256),
    "self_attn.kv_a_layernorm": (512,),
    "self_attn.kv_b_proj": (4 * 256, 512),
    "self_attn.o_proj": (256, 4 * 128),
}
MTP = {
    "embed_tokens": (384, 256),
    "enorm": (256,),
    "hnorm": (256,),
    "eh_proj": (256, 512),
    "shared_head.norm": (256,),
    "shared_head.head": (384, 256),
}


def mlp(at: str, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{at}.gate_proj": (inner, 256),
        f"{at}.up_proj": (inner, 256),
        f"{at}.down_proj": (256, inner),
    }


def test_all_names_and_shapes_with_a_dense_layer_experts_and_mtp() -> None:
    experts = {"mlp.gate": (4, 256), **mlp("mlp.shared_experts", 128)}
    for number in range(4):
        experts |= mlp(f"mlp.experts.{number}", 128)
    layers = [ATTENTION | mlp("mlp", 512), *[ATTENTION | experts] * 2, ATTENTION | experts | MTP]
    expected: dict[str, tuple[int, ...]] = {
        f"model.layers.{layer}.{name}.weight": shape
        for layer, held in enumerate(layers)
        for name, shape in held.items()
    }
    for layer in (1, 2, 3):
        expected[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"] = (4,)
    expected["model.embed_tokens.weight"] = expected["lm_head.weight"] = (384, 256)
    expected["model.norm.weight"] = (256,)
    found = architecture.tensors(CONFIG, Path())
    assert {name: shape for name, (_, shape) in found.items()} == expected
    kept = [name for name, (kind, _) in found.items() if kind == architecture.KEPT]
    assert kept == [f"model.layers.{layer}.self_attn.kv_b_proj.weight" for layer in range(4)]
    matrices = [name for name, (kind, _) in found.items() if kind == architecture.MATRIX]
    plain = ("norm.weight", "embed_tokens.weight", "head.weight", "mlp.gate.weight", "bias")
    assert not any(name.endswith((*plain, "eh_proj.weight")) for name in matrices)
    assert len(matrices) == 4 * 4 + 3 + 3 * 3 * 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_nextn_predict_layers", 10**18),  # took all memory, and never ended
        ("num_hidden_layers", 10**6),
        ("n_routed_experts", 10**6),
        ("n_routed_experts", "4"),
        ("moe_layer_freq", 1.5),
        ("num_attention_heads", True),
        ("q_lora_rank", -1),
        ("vocab_size", [1]),
        ("hidden_size", 10**4000),
    ],
    ids=lambda one: ascii(one)[:30],
)
def test_numbers_that_no_model_has_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        architecture.tensors({**CONFIG, name: value}, Path("folder"))
    assert caught.value.where == "folder/config.json" and len(str(caught.value)) < 300
