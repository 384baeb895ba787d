"""The weights: same seed, same bytes; shaped so that the text is printable."""

from __future__ import annotations

import hashlib

import numpy as np
from safetensors.numpy import load

from omnikit.engine import tiny_model
from omnikit.engine.tiny_model import VOCABULARY

# Changing these bytes means raising tiny_model.FORMAT, so that existing models are rewritten.
RECORDED = {1: "f951df7c999452b04a65e22216fcd058edda1504f92aad2c84553af83d1c2073"}


def test_the_bytes_of_seed_0_are_those_recorded_for_this_format() -> None:
    found = hashlib.sha256(tiny_model.weights(0)).hexdigest()
    assert found == RECORDED[tiny_model.FORMAT]


def test_another_seed_gives_other_weights() -> None:
    assert tiny_model.weights(0) != tiny_model.weights(1)


def test_tensors_have_the_names_and_shapes_of_the_configuration() -> None:
    tensors = load(tiny_model.weights(0))
    known = tiny_model.ARCHITECTURE
    hidden = known["hidden_size"]
    assert tensors["model.embed_tokens.weight"].shape == (VOCABULARY, hidden)
    assert tensors["lm_head.weight"].shape == (known["vocab_size"], hidden)
    for layer in range(known["num_hidden_layers"]):
        keys = tensors[f"model.layers.{layer}.self_attn.k_proj.weight"]
        assert keys.shape == (known["num_key_value_heads"] * tiny_model.HEAD, hidden)
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    assert sum(tensor.nbytes for tensor in tensors.values()) < 8 * 1024 * 1024


def test_heads_are_large_enough_for_attention_on_cpu() -> None:
    known = tiny_model.ARCHITECTURE
    assert known["hidden_size"] // known["num_attention_heads"] >= 32


def test_no_layer_writes_to_the_constant_channel_that_bans_unprintable_tokens() -> None:
    tensors = load(tiny_model.weights(3))
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert not tensor[0].any(), name
    assert len(set(tensors["model.embed_tokens.weight"][:, 0])) == 1
    head = tensors["lm_head.weight"]
    assert all(head[token, 0] < -10 for token in (0, 10, 31, 127, 200, 256, 257, 258))
    assert all(head[token, 0] >= 0 for token in range(32, 127))
