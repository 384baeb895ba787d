"""Seeded random weights of a tiny Qwen2, shaped so that its greedy text says something.

Channel 0 of the hidden state is a constant that no layer writes to: the output head reads it as a
bias, which keeps special and unprintable tokens out of the text. All other channels are random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnikit.tiny_tokenizer import VOCABULARY

if TYPE_CHECKING:
    import numpy

LAYERS = 2
HIDDEN = 128
HEADS = 4
KV_HEADS = 2
HEAD = HIDDEN // HEADS  # 32: the smallest that vLLM's attention on CPU takes
INNER = 256

ARCHITECTURE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "max_position_embeddings": 32768,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_sliding_window": False,
    "vocab_size": VOCABULARY,
}

_BIAS = 6.0  # of channel 0, beside random channels of size 1
_NEVER = -20.0  # the head's weight on it for tokens that must not be said
_LETTER = 4.0  # and for small letters and the space, so that the text looks like text


def weights(seed: int) -> bytes:
    """The content of model.safetensors for a seed."""
    import numpy as np
    from safetensors.numpy import save

    # Uniform draws of the frozen legacy generator: no rounding that differs between machines.
    random = np.random.RandomState(seed)

    def matrix(rows: int, columns: int, gain: float) -> numpy.ndarray[Any, Any]:
        spread = gain * float(np.sqrt(3.0 / columns))
        drawn = random.random_sample((rows, columns)) * 2.0 - 1.0
        return (drawn * spread).astype(np.float32)

    def vector(size: int, gain: float) -> numpy.ndarray[Any, Any]:
        return matrix(size, 1, gain)[:, 0]

    ones = np.ones(HIDDEN, dtype=np.float32)
    tensors: dict[str, numpy.ndarray[Any, Any]] = {}
    embedding = matrix(VOCABULARY, HIDDEN, float(np.sqrt(HIDDEN)))
    embedding[:, 0] = _BIAS
    tensors["model.embed_tokens.weight"] = embedding
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, rows in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            projection = matrix(rows, HIDDEN, 2.0)
            projection[:, 0] = 0.0  # the constant would drown what differs between tokens
            tensors[f"{at}self_attn.{name}_proj.weight"] = projection
            tensors[f"{at}self_attn.{name}_proj.bias"] = vector(rows, 0.1)
        tensors[f"{at}self_attn.o_proj.weight"] = _silent(matrix(HIDDEN, HEADS * HEAD, 2.0))
        tensors[f"{at}mlp.gate_proj.weight"] = matrix(INNER, HIDDEN, 1.0)
        tensors[f"{at}mlp.up_proj.weight"] = matrix(INNER, HIDDEN, 1.0)
        tensors[f"{at}mlp.down_proj.weight"] = _silent(matrix(HIDDEN, INNER, 1.0))
        tensors[f"{at}input_layernorm.weight"] = ones
        tensors[f"{at}post_attention_layernorm.weight"] = ones
    tensors["model.norm.weight"] = ones
    head = matrix(VOCABULARY, HIDDEN, 8.0)
    for token in range(VOCABULARY):
        text = chr(token) if 32 <= token < 127 else ""
        head[token, 0] = _LETTER if text.islower() or text == " " else 0.0 if text else _NEVER
    tensors["lm_head.weight"] = head
    saved: bytes = save(dict(sorted(tensors.items())), metadata={"format": "pt"})
    return saved


def _silent(projection: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    projection[0, :] = 0.0  # nothing is added to channel 0
    return projection
