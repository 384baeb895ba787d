"""A byte-level BPE tokenizer without merges: one token per UTF-8 byte, so any text round-trips.

As Qwen2's own tokenizer it first composes characters (NFC); transformers 5 does so for every Qwen2
model, whatever the file says, so the file says it too.
"""

from __future__ import annotations

from typing import Any

BYTES = 256
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids 256, 257, 258
VOCABULARY = BYTES + len(SPECIAL)

# ChatML, as Qwen uses it.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_symbols() -> list[str]:
    """The character that stands for each byte in byte-level BPE.

    Printable Latin-1 characters stand for themselves, the others are moved past 255.
    """
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    moved = iter(range(BYTES, 2 * BYTES))
    return [chr(byte if byte in plain else next(moved)) for byte in range(BYTES)]


def tokenizer_files() -> dict[str, dict[str, Any]]:
    """Contents of the tokenizer's files by name."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": BYTES + i, "content": token, **_AS_IT_STANDS, "special": True}
                for i, token in enumerate(SPECIAL)
            ],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {symbol: byte for byte, symbol in enumerate(byte_symbols())},
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[0],
            "additional_special_tokens": [SPECIAL[1]],
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
            "chat_template": CHAT_TEMPLATE,
        },
    }


_AS_IT_STANDS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
