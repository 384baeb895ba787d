"""Which tensors a model has, by its config.json.

Names and shapes as DeepSeek's modeling_deepseek.py and README_WEIGHTS.md and transformers' models
have them: layers from 0, then the MTP layers, each with an embedding and a head of its own.
What a layer holds is told by numbers of config.json, not by a model's name: latent attention where
there is a kv_lora_rank, an indexer where there is an index_n_heads, experts where they are counted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from omnikit.weights.checkpoint.headers import Checkpoint

# architectures in config.json: as servers know it, and as msmodelslim writes it.
SERVED, CONVERTED = "DeepseekV3ForCausalLM", "DeepseekV3Fusion"
# Whose layers are built as below: DeepSeek V3, R1, V3.1 and Kimi-K2; V3.2; GLM-5; GLM-4.5 to 4.7;
# Qwen3-MoE.
FAMILIES = (
    *(SERVED, "DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"),
    *("Glm4MoeForCausalLM", "Qwen3MoeForCausalLM"),
)
# Matrices that the formats quantise, those that they keep (kv_b_proj, the indexer's), all else.
MATRIX, KEPT, PLAIN = "matrix", "kept", "plain"
# An MTP layer's: copies of the main model's, which some checkpoints leave out.
SHARED = (".embed_tokens.weight", ".shared_head.head.weight")

# What names and shapes are made of. Where one is needed and missing, that is seen when it is used.
_NUMBERS = (
    *("hidden_size", "num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    *("vocab_size", "num_hidden_layers", "num_nextn_predict_layers", "q_lora_rank"),
    *("kv_lora_rank", "first_k_dense_replace", "moe_layer_freq", "intermediate_size"),
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts"),
    *("num_key_value_heads", "head_dim", "decoder_sparse_step", "index_n_heads", "index_head_dim"),
)
_LARGEST = (1 << 31) - 1
_MOST = 500_000  # tensors of a model: ten times those of DeepSeek-V3
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\b")


def tensors(config: dict[str, Any], folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """name -> (MATRIX, KEPT or PLAIN; shape). Raises InputError: a number is missing or is none."""
    _check_numbers(config, folder)
    try:
        return _tensors(config)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{error} is missing or no number.",
            where=str(folder / "config.json"),
            todo="take config.json from the original checkpoint again",
        ) from error


def _check_numbers(config: dict[str, Any], folder: Path) -> None:
    """Raises InputError: what is counted with is no number, or counts more than any model has."""
    told = {name: config.get(name) or 0 for name in _NUMBERS}
    wrong = [name for name, n in told.items() if type(n) is not int or not 0 <= n <= _LARGEST]
    if wrong:
        what = f"found {wrong[0]} {ascii(told[wrong[0]])[:80]}, expected a whole number from 0"
    else:
        layers = told["num_hidden_layers"] + told["num_nextn_predict_layers"]
        experts = told["n_routed_experts"] or told["num_experts"]
        if layers * (3 * experts + 1) <= _MOST:
            return
        what = f"{layers} layers of {experts} experts are more than any model has"
    raise InputError(
        f"{what}.",
        where=str(folder / "config.json"),
        todo="take config.json from the original checkpoint again",
    )


def check_complete(checkpoint: Checkpoint) -> None:
    """Raises InputError or ManyErrors: layers, experts or whole files are missing, by what
    config.json says of the model.
    """
    expected = tensors(checkpoint.config, checkpoint.folder)
    lost = [name for name in expected.keys() - checkpoint.tensors.keys() if not is_shared(name)]
    todo = "download what is missing: invoke download-weights"
    unnamed = {path.name for path in checkpoint.folder.glob("*.safetensors")}
    unnamed -= set(checkpoint.shards)
    if unnamed:
        todo = f"the index does not name {min(unnamed)}: download the index again"
    elif all(layer_of(name) >= checkpoint.config["num_hidden_layers"] for name in lost):
        todo += "; if this model has no MTP layer: num_nextn_predict_layers 0 in config.json"
    errors: list[ToolkitError] = [
        InputError(f"{line}.", where=str(checkpoint.folder), todo=todo)
        for line in missing(sorted(lost))
    ]
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(errors[:20])


def missing(names: list[str]) -> list[str]:
    """What names are missing, in a line for each layer."""
    layers: dict[str, list[str]] = {}
    for name in names:
        match = _LAYER.match(name)
        layers.setdefault(match[0] if match else name, []).append(name)
    return [
        f"{found[0]} is missing"
        + (f", and {len(found) - 1} more of {at}" if len(found) > 1 else "")
        for at, found in layers.items()
    ]


def layer_of(name: str) -> int:
    """A tensor's layer, -1 where it is in none."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def is_shared(name: str) -> bool:
    """Whether the model does without: an MTP layer's copy of what the main model has."""
    return name.startswith("model.layers.") and name.endswith(SHARED)


def _is_dense(c: dict[str, Any], layer: int) -> bool:
    """Whether a layer has no experts."""
    if "decoder_sparse_step" in c:  # Qwen's way to say it
        return layer in (c.get("mlp_only_layers") or ()) or bool(
            (layer + 1) % (c["decoder_sparse_step"] or 1)
        )
    sparse_from: int = c["first_k_dense_replace"]
    return layer < sparse_from or bool(layer % (c.get("moe_layer_freq") or 1))


class _Tensors(dict[str, tuple[str, tuple[int, ...]]]):
    """Collects them."""

    def plain(self, name: str, *shape: int) -> None:
        self[name] = (PLAIN, shape)

    def matrix(self, name: str, out: int, into: int, kind: str = MATRIX) -> None:
        self[f"{name}.weight"] = (kind, (out, into))

    def mlp(self, at: str, inner: int, hidden: int) -> None:
        for name, out, into in (
            ("gate_proj", inner, hidden),
            ("up_proj", inner, hidden),
            ("down_proj", hidden, inner),
        ):
            self.matrix(f"{at}.{name}", out, into)


def _tensors(c: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    found, hidden = _Tensors(), c["hidden_size"]
    found.plain("model.embed_tokens.weight", c["vocab_size"], hidden)
    found.plain("model.norm.weight", hidden)
    if not c.get("tie_word_embeddings"):
        found.plain("lm_head.weight", c["vocab_size"], hidden)
    latent = "kv_lora_rank" in c or "qk_rope_head_dim" in c
    main, more = c["num_hidden_layers"], c.get("num_nextn_predict_layers") or 0
    experts = c["n_routed_experts"] if "num_experts" not in c else c["num_experts"]
    for layer in range(main + more):
        at = f"model.layers.{layer}"
        found.plain(f"{at}.input_layernorm.weight", hidden)
        found.plain(f"{at}.post_attention_layernorm.weight", hidden)
        (_latent_attention if latent else _attention)(found, c, f"{at}.self_attn")
        if _is_dense(c, layer):
            found.mlp(f"{at}.mlp", c["intermediate_size"], hidden)
        else:
            inner = c["moe_intermediate_size"]
            for expert in range(experts):
                found.mlp(f"{at}.mlp.experts.{expert}", inner, hidden)
            if c.get("n_shared_experts"):
                found.mlp(f"{at}.mlp.shared_experts", inner * c["n_shared_experts"], hidden)
            found.plain(f"{at}.mlp.gate.weight", experts, hidden)
            # Qwen's counts experts by another name, and its gate has no bias.
            if "num_experts" not in c and c.get("topk_method", "noaux_tc") == "noaux_tc":
                found.plain(f"{at}.mlp.gate.e_score_correction_bias", experts)
        if layer >= main:
            found.plain(f"{at}.embed_tokens.weight", c["vocab_size"], hidden)
            found.plain(f"{at}.enorm.weight", hidden)
            found.plain(f"{at}.hnorm.weight", hidden)
            found.plain(f"{at}.eh_proj.weight", hidden, 2 * hidden)
            found.plain(f"{at}.shared_head.norm.weight", hidden)
            found.plain(f"{at}.shared_head.head.weight", c["vocab_size"], hidden)
    return found


def _latent_attention(found: _Tensors, c: dict[str, Any], at: str) -> None:
    """DeepSeek's, and with an indexer of what is to be attended to: V3.2's and GLM-5's."""
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    rank, kv = c.get("q_lora_rank"), c["kv_lora_rank"]
    if rank:
        found.matrix(f"{at}.q_a_proj", rank, hidden)
        found.plain(f"{at}.q_a_layernorm.weight", rank)
    found.matrix(f"{at}.{'q_b_proj' if rank else 'q_proj'}", heads * (nope + rope), rank or hidden)
    found.matrix(f"{at}.kv_a_proj_with_mqa", kv + rope, hidden)
    found.plain(f"{at}.kv_a_layernorm.weight", kv)
    found.matrix(f"{at}.kv_b_proj", heads * (nope + value), kv, KEPT)
    found.matrix(f"{at}.o_proj", hidden, heads * value)
    if c.get("index_n_heads"):
        heads, size = c["index_n_heads"], c["index_head_dim"]
        found.matrix(f"{at}.indexer.wq_b", heads * size, rank or hidden, KEPT)
        found.matrix(f"{at}.indexer.wk", size, hidden, KEPT)
        found.plain(f"{at}.indexer.k_norm.weight", size)
        found.plain(f"{at}.indexer.k_norm.bias", size)
        found.plain(f"{at}.indexer.weights_proj.weight", heads, hidden)


def _attention(found: _Tensors, c: dict[str, Any], at: str) -> None:
    """With keys and values for groups of heads: Qwen3's and GLM-4's."""
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    size = c.get("head_dim") or hidden // heads
    for name, count in (("q", heads), ("k", c["num_key_value_heads"]), ("v", None)):
        out = (count or c["num_key_value_heads"]) * size
        found.matrix(f"{at}.{name}_proj", out, hidden)
        if c.get("attention_bias"):
            found.plain(f"{at}.{name}_proj.bias", out)
    found.matrix(f"{at}.o_proj", hidden, heads * size)
    # Qwen3 has no setting for it.
    if c.get("use_qk_norm", "decoder_sparse_step" in c):
        found.plain(f"{at}.q_norm.weight", size)
        found.plain(f"{at}.k_norm.weight", size)
