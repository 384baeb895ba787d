"""A tiny Qwen2 model with seeded random weights: real enough to serve, and made without a network.

Its greedy text is printable and depends on every part of the prompt, so that a wrong hand-over of
the KV cache shows in the text. The same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from hostkit.base.errors import ActionError, InputError
from hostkit.base.writing import beside_of

if TYPE_CHECKING:
    import numpy


# A byte-level BPE tokenizer without merges: one token per UTF-8 byte, so any text round-trips.
#
# As Qwen2's own tokenizer it first composes characters (NFC); transformers 5 does so for every
# Qwen2 model, whatever the file says, so the file says it too.

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


# Seeded random weights of a tiny Qwen2, shaped so that its greedy text says something.
#
# Channel 0 of the hidden state is a constant that no layer writes to: the output head reads it as a
# bias, which keeps special and unprintable tokens out of the text. All other channels are random.

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
        made: numpy.ndarray[Any, Any] = (drawn * spread).astype(np.float32)
        return made

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


FORMAT = 1  # raise it with every change of the generated bytes: older models are then rewritten
MANIFEST = "tiny-model-manifest.json"


@dataclass(frozen=True)
class Status:
    """What is in a model folder. state: missing, foreign, different or unchanged.

    differences: what a rewrite would mend, as text.
    """

    state: str
    differences: tuple[str, ...] = ()


def status(out: Path, seed: int) -> Status:
    """Look at a folder, without changing it. Compares hashes, not only names."""
    if not out.exists():
        return Status("missing")
    if not out.is_dir():
        raise InputError("is a file, expected a folder for the model.", where=str(out))
    manifest = _read_manifest(out)
    if manifest is None:
        return Status("foreign" if any(out.iterdir()) else "missing")
    for key, wanted in (("format", FORMAT), ("seed", seed)):
        if manifest[key] != wanted:
            return Status("different", (f"{key} {manifest[key]}, wanted {wanted}",))
    differences = []
    for name, digest in sorted(manifest["files"].items()):
        found = _digest(out / name)
        if found != digest:
            differences.append(f"{name} {'is missing' if found is None else 'is damaged'}")
    return Status("different" if differences else "unchanged", tuple(differences))


def look(out: Path, seed: int, *, force: bool = False) -> Status:
    """As status, but raises InputError for a folder with other content unless force is given."""
    found = status(out, seed)
    if found.state == "foreign" and not force:
        raise InputError(
            "has content that was not made by this tool; it is left alone.",
            where=str(out),
            todo="choose another folder, or add --force to write over files of the same names",
        )
    return found


def make(out: Path, seed: int, *, force: bool = False) -> Status:
    """Write the model unless it is there as wanted; returns what was found before.

    A new folder appears under its name only when complete. In an existing one each file is
    replaced whole, the manifest last; files of other names stay.
    """
    found = look(out, seed, force=force)
    if found.state == "unchanged" and not force:
        return found
    files = build(seed)
    try:
        if found.state == "missing":
            _create(out, files)
        else:
            for name, data in files.items():
                _replace(out / name, data)
    except OSError as error:
        if status(out, seed).state == "unchanged":  # somebody else was faster
            return found
        raise ActionError(f"cannot write the model: {error}.", where=str(out)) from error
    return found


def build(seed: int) -> dict[str, bytes]:
    """All files of the model by name, the manifest last. A function of the seed alone."""
    files = {
        "config.json": _json({**ARCHITECTURE, **_TOKEN_IDS}),
        "generation_config.json": _json({"_from_model_config": False, **_TOKEN_IDS}),
        **{name: _json(data) for name, data in tokenizer_files().items()},
        "model.safetensors": weights(seed),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    files[MANIFEST] = _json({"format": FORMAT, "seed": seed, "files": hashes})
    return files


_TOKEN_IDS = {"bos_token_id": 256, "eos_token_id": [258, 256], "pad_token_id": 256}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _read_manifest(out: Path) -> Optional[dict[str, Any]]:
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
        return manifest if {"format", "seed", "files"} <= set(manifest) else None
    except (OSError, ValueError, TypeError):
        return None


def _digest(path: Path) -> Optional[str]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _replace(path: Path, data: bytes) -> None:
    beside = beside_of(path)
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _create(out: Path, files: dict[str, bytes]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        beside.chmod(0o755)
        for name, data in files.items():
            (beside / name).write_bytes(data)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
