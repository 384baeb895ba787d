"""A checkpoint as DeepSeek publishes it, in small: same structure, real FP8 tensors, for tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from omnikit.weights.loadable import small_deepseek

# The order and the style of the imports, the block and the names used later are those of the
# published file; the classes are only as long as the edits need.
MODELING = '''\
# coding=utf-8
""" A model for tests. """
import math
from typing import Optional

from transformers.activations import ACT2FN
from transformers.pytorch_utils import (
    ALL_LAYERNORM_LAYERS,
)
from transformers.utils import (
    add_start_docstrings,
    add_start_docstrings_to_model_forward,
    is_flash_attn_2_available,
    is_flash_attn_greater_or_equal_2_10,
    logging,
    replace_return_docstrings,
)
from transformers.utils.import_utils import is_torch_fx_available
from .configuration_deepseek import DeepseekV3Config

if is_flash_attn_2_available():
    from flash_attn import flash_attn_func, flash_attn_varlen_func
    from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input  # noqa


if is_torch_fx_available():
    FX = True

logger = logging.get_logger(__name__)  # 中文


class DeepseekV3FlashAttention2:
    def __init__(self):
        self._top_left = not is_flash_attn_greater_or_equal_2_10()

    def forward(self, states):
        return flash_attn_func(states)


class DeepseekV3ForCausalLM:
    attention = DeepseekV3FlashAttention2
'''
BLOCK = MODELING[MODELING.index("if is_flash") : MODELING.index("\n\n\nif is_torch")]

# As the install guide edits it by hand.
BY_HAND = MODELING.replace("    is_flash_attn_2_", "    # is_flash_attn_2_").replace(
    BLOCK, f"'''\n{BLOCK}\n'''"
)

# Small, but with blocks at the edge that are partial, and more than one block to a matrix.
_SIZES = {
    "vocab_size": 32,
    "intermediate_size": 192,
    "moe_intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 2,
    "n_group": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
LAYERS = small_deepseek.LAYERS  # without the MTP layer
CONFIG: dict[str, Any] = {
    **{k: v for k, v in small_deepseek.CONFIG.items() if k != "rms_norm_eps"},
    **_SIZES,
    "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"},
    "quantization_config": small_deepseek.QUANTISATION,
    "rms_norm_eps": 1e-06,
}
CONFIG_TEXT = json.dumps(CONFIG, indent=2) + "\n"


@cache
def _tensors() -> small_deepseek.Small:
    return small_deepseek.make(**_SIZES)


def make(folder: Path) -> Path:
    """A whole checkpoint with two shards."""
    _tensors().write(folder, shards=2)
    (folder / "modeling_deepseek.py").write_bytes(MODELING.encode())
    (folder / "configuration_deepseek.py").write_text("class DeepseekV3Config:\n    pass\n")
    (folder / "config.json").write_text(CONFIG_TEXT)
    return folder
