"""Which tensors a model of DeepSeek-V3's architecture has, by its config.json.

Names and shapes as DeepSeek's modeling_deepseek.py and README_WEIGHTS.md have them: layers from 0,
then the MTP layers, each with an embedding and a head of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from omnikit.weights.checkpoint.headers import Checkpoint

# architectures in config.json: as servers know it, and as msmodelslim writes it.
SERVED, CONVERTED = "DeepseekV3ForCausalLM", "DeepseekV3Fusion"
# Matrices that the formats quantise, the one that they keep (kv_b_proj), all else.
MATRIX, KEPT, PLAIN = "matrix", "kept", "plain"
# An MTP layer's: copies of the main model's, which some checkpoints leave out.
SHARED = (".embed_tokens.weight", ".shared_head.head.weight")

# What names and shapes are made of. Where one is needed and missing, that is seen when it is used.
_NUMBERS = (
    *("hidden_size", "num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    *("vocab_size", "num_hidden_layers", "num_nextn_predict_layers", "q_lora_rank"),
    *("kv_lora_rank", "first_k_dense_replace", "moe_layer_freq", "intermediate_size"),
    *("moe_intermediate_size", "n_routed_experts", "n_shared_experts"),
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
        if layers * (3 * told["n_routed_experts"] + 1) <= _MOST:
            return
        what = f"{layers} layers of {told['n_routed_experts']} experts are more than any model has"
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
    lost = [name for name in expected.keys() - checkpoint.tensors.keys() if not _is_shared(name)]
    todo = "download what is missing: invoke download-weights"
    unnamed = {path.name for path in checkpoint.folder.glob("*.safetensors")}
    unnamed -= set(checkpoint.shards)
    if unnamed:
        todo = f"the index does not name {min(unnamed)}: download the index again"
    elif all(_layer(name) >= checkpoint.config["num_hidden_layers"] for name in lost):
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


def _layer(name: str) -> int:
    """A tensor's layer, -1 where it is in none."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def _is_shared(name: str) -> bool:
    """Whether the model does without: an MTP layer's copy of what the main model has."""
    return name.startswith("model.layers.") and name.endswith(SHARED)


def _tensors(c: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]

    def plain(name: str, *shape: int) -> None:
        found[name] = (PLAIN, shape)

    def matrix(name: str, out: int, into: int) -> None:
        kind = KEPT if name.endswith("kv_b_proj") else MATRIX
        found[f"{name}.weight"] = (kind, (out, into))

    def mlp(at: str, inner: int) -> None:
        for name, out, into in (
            ("gate_proj", inner, hidden),
            ("up_proj", inner, hidden),
            ("down_proj", hidden, inner),
        ):
            matrix(f"{at}.{name}", out, into)

    plain("model.embed_tokens.weight", c["vocab_size"], hidden)
    plain("model.norm.weight", hidden)
    if not c.get("tie_word_embeddings"):
        plain("lm_head.weight", c["vocab_size"], hidden)
    main, more = c["num_hidden_layers"], c.get("num_nextn_predict_layers") or 0
    for layer in range(main + more):
        at = f"model.layers.{layer}"
        plain(f"{at}.input_layernorm.weight", hidden)
        plain(f"{at}.post_attention_layernorm.weight", hidden)
        rank = c.get("q_lora_rank")
        if rank:
            matrix(f"{at}.self_attn.q_a_proj", rank, hidden)
            plain(f"{at}.self_attn.q_a_layernorm.weight", rank)
        name = "q_b_proj" if rank else "q_proj"
        matrix(f"{at}.self_attn.{name}", heads * (nope + rope), rank or hidden)
        kv = c["kv_lora_rank"]
        matrix(f"{at}.self_attn.kv_a_proj_with_mqa", kv + rope, hidden)
        plain(f"{at}.self_attn.kv_a_layernorm.weight", kv)
        matrix(f"{at}.self_attn.kv_b_proj", heads * (nope + value), kv)
        matrix(f"{at}.self_attn.o_proj", hidden, heads * value)
        if layer < c["first_k_dense_replace"] or layer % (c.get("moe_layer_freq") or 1):
            mlp(f"{at}.mlp", c["intermediate_size"])
        else:
            inner = c["moe_intermediate_size"]
            for expert in range(c["n_routed_experts"]):
                mlp(f"{at}.mlp.experts.{expert}", inner)
            if c.get("n_shared_experts"):
                mlp(f"{at}.mlp.shared_experts", inner * c["n_shared_experts"])
            plain(f"{at}.mlp.gate.weight", c["n_routed_experts"], hidden)
            if c.get("topk_method", "noaux_tc") == "noaux_tc":
                plain(f"{at}.mlp.gate.e_score_correction_bias", c["n_routed_experts"])
        if layer >= main:
            plain(f"{at}.embed_tokens.weight", c["vocab_size"], hidden)
            plain(f"{at}.enorm.weight", hidden)
            plain(f"{at}.hnorm.weight", hidden)
            plain(f"{at}.eh_proj.weight", hidden, 2 * hidden)
            plain(f"{at}.shared_head.norm.weight", hidden)
            plain(f"{at}.shared_head.head.weight", c["vocab_size"], hidden)
    return found
