"""A small checkpoint of DeepSeek-V3's architecture: true names, dtypes, FP8 blocks, MTP layer.

Written with the safetensors library. The library's numpy front has no FP8 and no bf16, so tensors
are handed over as bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import serialize_file

from omnikit.weights.checkpoint import architecture

_NAMES = {
    **{"F8_E4M3": "float8_e4m3fn", "BF16": "bfloat16", "F16": "float16"},
    **{"F32": "float32", "I8": "int8"},
}
LAYERS = 3
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 384,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "q_lora_rank": 192,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "torch_dtype": "bfloat16",
}
QUANTISATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}


def e4m3_values() -> Any:
    """The numbers of all 256 bytes, by the definition of e4m3fn: float32 [256]."""
    found = []
    for byte in range(256):
        exponent, mantissa = (byte >> 3) & 15, byte & 7
        value = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
        value = float("nan") if byte & 127 == 127 else value
        found.append(-value if byte & 128 else value)
    return np.array(found, np.float32)


VALUES = e4m3_values()


def to_blocks(matrix: Any, block: tuple[int, int]) -> tuple[Any, Any]:
    """float32 [out, in] as e4m3 bytes and one scale for each block: nearest values."""
    rows, columns = matrix.shape
    grid = -(-rows // block[0]), -(-columns // block[1])
    scales = np.empty(grid, np.float32)
    made = np.empty(matrix.shape, np.uint8)
    steps = VALUES[:127]
    middles = (steps[1:] + steps[:-1]) / 2
    for i in range(grid[0]):
        for j in range(grid[1]):
            place = np.s_[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            part = matrix[place]
            scales[i, j] = np.float32(max(np.abs(part).max(), 1e-12) / 448)
            nearest = np.searchsorted(middles, np.abs(part) / scales[i, j])
            byte: np.ndarray[Any, Any] = nearest.astype(np.uint8)
            made[place] = byte | np.where(part < 0, 128, 0).astype(np.uint8)
    return made, scales


def widened(matrix: Any, scales: Any, block: tuple[int, int]) -> Any:
    """What the bytes stand for: float32 [out, in]."""
    rows, columns = matrix.shape
    wide = scales.repeat(block[0], 0)[:rows].repeat(block[1], 1)[:, :columns]
    return VALUES[matrix] * wide


def bf16(matrix: Any) -> Any:
    """float32 to the nearest bf16, as uint16."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(words: Any) -> Any:
    """uint16 to float32."""
    return (words.astype(np.uint32) << 16).view(np.float32)


def opened(made: Small) -> Small:
    """The same as a bf16 checkpoint: what the FP8 matrices stand for."""
    out = Small(None, dict(made.config))
    for name, (dtype, array) in made.tensors.items():
        if dtype == "F8_E4M3":
            scales = made.tensors[f"{name}_scale_inv"][1]
            out.tensors[name] = ("BF16", bf16(widened(array, scales, made.block)))
        elif not name.endswith("_scale_inv"):
            out.tensors[name] = (dtype, array)
    return out


@dataclass
class Small:
    """block: of the FP8 matrices, None: all bf16. tensors: name -> (dtype, array)."""

    block: Any = (128, 128)
    config: dict[str, Any] = field(default_factory=lambda: dict(CONFIG))
    tensors: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path, shards: int = 3) -> Path:
        """The files. Block scales lie in the file after that of their matrix."""
        folder.mkdir(parents=True)
        config = dict(self.config)
        if self.block is not None:
            config["quantization_config"] = {**QUANTISATION, "weight_block_size": list(self.block)}
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
        (folder / "configuration_deepseek.py").write_text("# as it comes with the model\n")
        place: dict[str, int] = {}
        matrices = [name for name in self.tensors if not name.endswith("_scale_inv")]
        for number, name in enumerate(matrices):
            place[name] = number * shards // len(matrices)
        for name in self.tensors.keys() - place.keys():
            place[name] = (place.get(name[: -len("_scale_inv")], 0) + 1) % shards
        files = [f"model-{i + 1:05}-of-{shards:06}.safetensors" for i in range(shards)]
        for number, file in enumerate(files):
            held = {name: one for name, one in self.tensors.items() if place[name] == number}
            save(held, folder / file)
        index = {"metadata": {}, "weight_map": {name: files[i] for name, i in place.items()}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    def fill(self, seed: int, rows: tuple[float, float]) -> None:
        """Random numbers for all tensors that config has. rows: the range of the rows' sizes."""
        random = np.random.default_rng(seed)
        for name, (kind, shape) in architecture.tensors(self.config, Path()).items():
            if kind != architecture.PLAIN:
                # Rows of very different size, as trained matrices have.
                found = random.normal(0, shape[1] ** -0.5, shape)
                found *= random.uniform(*rows, (shape[0], 1))
                if self.block is None:
                    self.tensors[name] = ("BF16", bf16(found))
                else:
                    made, scales = to_blocks(found.astype(np.float32), self.block)
                    self.tensors[name] = ("F8_E4M3", made)
                    self.tensors[f"{name}_scale_inv"] = ("F32", scales)
            elif name.endswith("correction_bias"):
                self.tensors[name] = ("F32", random.normal(0, 0.01, shape).astype(np.float32))
            elif len(shape) == 1:  # a norm's, or a bias
                self.tensors[name] = ("BF16", bf16(1 + random.normal(0, 0.1, shape)))
            else:
                spread = 1.0 if "embed_tokens" in name else 0.05
                self.tensors[name] = ("BF16", bf16(random.normal(0, spread, shape)))


def save(tensors: dict[str, tuple[str, Any]], path: Path) -> None:
    """One safetensors file."""
    data = {
        name: {"dtype": _NAMES[dtype], "shape": list(array.shape), "data": array.tobytes()}
        for name, (dtype, array) in tensors.items()
    }
    serialize_file(data, str(path), {"format": "pt"})  # type: ignore[no-untyped-call]


def make(
    block: Any = (128, 128), seed: int = 0, rows: tuple[float, float] = (0.2, 3), **config: Any
) -> Small:
    """Random weights of CONFIG's shapes, MTP layer included. config: changes of it. rows: the range
    of the rows' sizes.
    """
    small = Small(block, {**CONFIG, **config})
    small.fill(seed, rows)
    return small
