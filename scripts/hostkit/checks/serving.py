"""Job "serving": what the servers of this host serve with, to be held against other hosts' servers.

Hashes of the model's files, and what the running servers were told, as the kernel has it.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from hostkit.agent.unpack import read_host
from hostkit.base.records import pid_here, read_record
from hostkit.checks import model, warm
from hostkit.files import regular

_MODEL = ("config.json", "generation_config.json", "quant*.json", "*.py")
_TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "*.tiktoken", "tiktoken.model", "vocab.*", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"),
)
_TEMPLATE = ("chat_template.*", "tokenizer_config.json")
_TEMPLATE_KEY = "chat_template"  # of tokenizer_config.json: no business of the tokenizer's
# Of a large file the beginning, where a safetensors file describes its tensors, and pieces all
# over it: other weights differ in every piece. "invoke verify-weights" reads all of it.
_WHOLE = 16 << 20
_HEAD, _PIECE, _PIECES = 1 << 20, 1 << 12, 32

Hashes = dict[str, str]


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """What is served with here. parameters: work_dir, model (folder), flags (names, with dashes).

    Returns files: by subject (weights, model, tokenizer, template), hashes by name; why: of files
    that cannot be read, else None. servers: by name, the flags that the running process has, none
    where it cannot be seen. other: nodes that run with what was deployed before.
    """
    host = read_host(Path(parameters["work_dir"]))
    state = Path(host["work_dir"]) / "state"
    servers: dict[str, dict[str, str]] = {}
    other = []
    for node in host["nodes"]:
        record = read_record(state, node["name"])
        if record is None:
            continue
        if record.get("digest") != node["digest"]:
            other.append(node["name"])
        for spec, entry in zip(node["servers"], record["servers"]):
            if spec.get("model"):
                servers[spec["name"]] = flags(_words(entry), parameters["flags"])
    files, why = _files(Path(parameters["model"]))
    return {"changed": False, "files": files, "why": why, "servers": servers, "other": other}


def _words(entry: dict[str, Any]) -> list[str]:
    """The command line of a recorded process; empty where it is gone or cannot be seen."""
    pid = pid_here(entry["process"]) if entry.get("process") else None
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes() if pid else b""
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]


def flags(words: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """Some flags of a command line, by their names with dashes; a bare one is "true".

    >>> flags(["vllm", "--block_size", "128", "--seed=1", "--eager"], ["block-size", "eager"])
    {'block-size': '128', 'eager': 'true'}
    """
    wanted, found = set(names), {}
    for word, following in zip(words, [*words[1:], "--"]):
        name, equals, value = word[2:].partition("=")
        name = name.replace("_", "-")
        if word.startswith("--") and name in wanted:
            found[name] = value if equals else "true" if following.startswith("--") else following
    return found


def _files(folder: Path) -> tuple[dict[str, Hashes], Any]:
    """Hashes by subject and name, and why there are none."""
    subjects: dict[str, tuple[tuple[str, ...], Callable[[Path], str]]] = {
        "weights": (warm.WEIGHTS, _sampled),
        "model": (_MODEL, _whole),
        "tokenizer": (_TOKENIZER, lambda path: _whole(path, without=_TEMPLATE_KEY)),
        "template": (_TEMPLATE, lambda path: _whole(path, only=_TEMPLATE_KEY)),
    }
    try:
        found = {
            subject: _hashed(folder, patterns, one) for subject, (patterns, one) in subjects.items()
        }
    except (OSError, ValueError) as error:
        return {}, f"{folder}: {error}"
    return (found, None) if found["weights"] else ({}, f"{folder}: no weights are there")


def _hashed(folder: Path, patterns: Iterable[str], one: Callable[[Path], str]) -> Hashes:
    names = {path.name: path for pattern in patterns for path in folder.glob(pattern)}
    with ThreadPoolExecutor(8) as pool:  # the disks of a model are often far away
        hashes = pool.map(one, (names[name] for name in sorted(names)))
        return {name: value for name, value in zip(sorted(names), hashes) if value}


def _sampled(path: Path) -> str:
    """A hash over size, beginning and pieces of a file; over all of it where it is small."""
    with regular.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        made = hashlib.sha256(f"{size}\n".encode())
        if size <= _WHOLE:
            made.update(file.read())
            return made.hexdigest()
        made.update(file.read(_HEAD))
        for number in range(1, _PIECES + 1):
            file.seek((size - _PIECE) * number // _PIECES)
            made.update(file.read(_PIECE))
    return made.hexdigest()


def _whole(path: Path, without: str = "", only: str = "") -> str:
    """The hash of a file; of JSON without one member, or of that alone ("" where it is lacking)."""
    if path.name != "tokenizer_config.json" or not (without or only):
        return hashlib.sha256(regular.data(path)).hexdigest()
    data, problem = model.read_json(path)
    if problem:
        raise ValueError(problem)
    if only and only not in data:
        return ""
    kept = data[only] if only else {key: one for key, one in data.items() if key != without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
