"""Models of vllm-ascend's recipes as far as its checks of a command line look at them.

Folders with a config.json of the right architecture and sizes, and ModelSlim's description where
the recipe has --quantization ascend; no weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_DEEPSEEK: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "num_nextn_predict_layers": 1,
}
_KIMI = {
    **_DEEPSEEK,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "n_routed_experts": 384,
    "vocab_size": 163840,
    "max_position_embeddings": 262144,
    "num_nextn_predict_layers": 0,
}
_V4 = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "hidden_size": 4096,
    "num_hidden_layers": 43,
    "num_attention_heads": 64,
    "num_key_value_heads": 1,
    "head_dim": 512,
    "n_routed_experts": 256,
    "num_experts_per_tok": 6,
    "q_lora_rank": 1024,
    "qk_rope_head_dim": 64,
    "index_topk": 512,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "sliding_window": 128,
    "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0],
    "vocab_size": 129280,
    "max_position_embeddings": 1048576,
    "num_nextn_predict_layers": 1,
}
# By the last part of the name that a recipe has.
CONFIGS: dict[str, dict[str, Any]] = {
    "DeepSeek-V3.1-Terminus-w8a8-mtp-QuaRot": _DEEPSEEK,
    "DeepSeek-V4-Flash-w8a8-mtp": _V4,
    "DeepSeek-V4-Pro-w4a8-mtp": {**_V4, "num_attention_heads": 128, "hidden_size": 7168},
    "GLM-5.1-w8a8": {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "num_nextn_predict_layers": 1,
    },
    "Kimi-K2.6-w4a8": {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "text_config": _KIMI,
    },
    "Kimi-K2.5-DFlash": {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "hidden_size": 7168,
        "num_hidden_layers": 6,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 163840,
        "max_position_embeddings": 262144,
        "dflash_config": {"target_layer_ids": [1, 12, 24, 35, 47, 58], "mask_token_id": 163838},
    },
    "MiniMax-M2.5-w8a8-QuaRot": {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
    },
    "MiniMax-M2.5-eagle-model-0318": {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": 3072,
        "num_hidden_layers": 1,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
        "vocab_size": 200064,
        "draft_vocab_size": 32000,
        "max_position_embeddings": 196608,
    },
    "Qwen3-235B-A22B-W8A8": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 4096,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
    },
}


def write(folder: Path, name: str) -> Path:
    """The folder of a model, by the last part of its name; made once."""
    short = name.rpartition("/")[2]
    made = folder / short
    if not made.exists():
        made.mkdir(parents=True)
        config = {"torch_dtype": "bfloat16", **CONFIGS[short]}
        (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
        described = {"model.embed_tokens.weight": "FLOAT", "model_quant_type": "W8A8_DYNAMIC"}
        # Of a parser of reasoning vLLM asks the tokens between which a model thinks.
        words = {"<unk>": 0, "<think>": 1, "</think>": 2}
        tokenizer = {
            "version": "1.0",
            "added_tokens": [],
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
        }
        (made / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        described_tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
        (made / "tokenizer_config.json").write_text(json.dumps(described_tokenizer), "utf-8")
        (made / "quant_model_description.json").write_text(json.dumps(described), "utf-8")
    return made
