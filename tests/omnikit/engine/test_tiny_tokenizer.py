"""The tokenizer's files, checked for structure here and with the engine's own reader when slow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from jinja2 import Environment

from omnikit.engine import tiny_model

TEXTS = ["hello", "你好，世界 🦄", "tab\tline\nnul\x00", "  two  spaces ", "<b>&\"'$()`;", "é", ""]


def encoded(text: str) -> list[int]:
    """What a byte-level tokenizer without merges does: symbols of the bytes, looked up."""
    vocab = tiny_model.tokenizer_files()["tokenizer.json"]["model"]["vocab"]
    symbols = tiny_model.byte_symbols()
    return [vocab[symbols[byte]] for byte in text.encode()]


def test_each_byte_has_a_symbol_of_its_own_and_itself_as_id() -> None:
    symbols = tiny_model.byte_symbols()
    assert len(set(symbols)) == 256
    assert all(encoded(text) == list(text.encode()) for text in TEXTS)


def test_symbols_are_those_of_byte_level_bpe() -> None:
    symbols = tiny_model.byte_symbols()
    assert (symbols[ord("A")], symbols[ord(" ")], symbols[ord("\n")]) == ("A", "Ġ", "Ċ")
    assert symbols[0xAD] == "Ń"  # the last that is moved: the soft hyphen


def test_special_tokens_follow_the_bytes() -> None:
    added = tiny_model.tokenizer_files()["tokenizer.json"]["added_tokens"]
    assert [token["id"] for token in added] == [256, 257, 258]
    assert all(token["special"] for token in added)
    assert tiny_model.VOCABULARY == 259


def test_the_chat_template_is_chatml() -> None:
    template = Environment().from_string(tiny_model.CHAT_TEMPLATE)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.slow
def test_the_engines_own_reader_round_trips_any_text(engine_python: Path, tmp_path: Path) -> None:
    tiny_model.make(tmp_path / "model", 0)
    code = (
        "import sys, json\n"
        "from transformers import AutoTokenizer\n"
        "t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "texts = json.loads(sys.argv[2])\n"
        "ids = [t(text)['input_ids'] for text in texts]\n"
        "print(json.dumps([ids, [t.decode(one) for one in ids], t.eos_token]))\n"
    )
    words = [str(engine_python), "-c", code, str(tmp_path / "model"), json.dumps(TEXTS)]
    env = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    ids, decoded, eos = json.loads(done.stdout.splitlines()[-1])
    assert decoded == TEXTS
    assert ids == [encoded(text) for text in TEXTS]
    assert eos == "<|im_end|>"
