"""A checkpoint as DeepSeek publishes it, in small: same structure, written for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"},
    "hidden_size": 7168,
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
}
CONFIG_TEXT = json.dumps(CONFIG, indent=2) + "\n"


def make(folder: Path) -> Path:
    """A whole checkpoint with two shards of no content to speak of."""
    folder.mkdir(parents=True)
    (folder / "modeling_deepseek.py").write_bytes(MODELING.encode())
    (folder / "configuration_deepseek.py").write_text("class DeepseekV3Config:\n    pass\n")
    (folder / "config.json").write_text(CONFIG_TEXT)
    weight_map = {}
    for number in (1, 2):
        name = f"model-0000{number}-of-000002.safetensors"
        (folder / name).write_bytes(bytes(1000 * number))
        weight_map[f"model.layers.{number}.mlp.gate_proj.weight"] = name
    index = {"metadata": {"total_size": 3000}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
