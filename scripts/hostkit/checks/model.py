"""Checks of a model's folder: configuration, code, tokenizer, and every shard whole.

A truncated shard can load as garbage, so each file's header is held against the file's size. The
weights themselves are not read.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import ToolkitError
from hostkit.checks import quantised
from hostkit.checks.base import Group, some
from hostkit.files import regular, tensor_header

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
# Of files of these kinds the manifest has name and size; of a README it has nothing.
_KINDS = (".safetensors", ".json", ".py", ".model", ".txt", ".jinja", ".tiktoken", ".bin", ".pt")
_LFS = b"version https://git-lfs"
_AGAIN = "copy or download the model again, and compare with its source: "


def look(group: Group) -> None:
    """All checks of the model's folder."""
    path = group.given["paths"].get("model")
    if not path:
        return
    title = "model folder"
    try:
        group.answers(path)
    except ToolkitError as error:
        group.error("model.folder", title, error, needed=path)
        return
    folder = Path(path)
    if not folder.is_dir() or not any(folder.iterdir()):
        made = group.given["model_generated"]
        found = f"{path} is not there" if not folder.exists() else f"{path} is empty or no folder"
        group.add(
            *("model.folder", title, bool(made)),
            found=found + ("; the toolkit makes it" if made else ""),
            needed="a folder with config.json and weights",
            todo=f"mkdir -p {folder.parent}, then copy the model there: rsync -a SOURCE/ {path}/",
        )
        return
    config = _folder(group, folder)
    tensors = _weights(group, folder)
    if tensors:
        quantised.look(group, folder, config, tensors)
    group.facts["manifest_sha256"] = manifest(folder)


def _folder(group: Group, folder: Path) -> dict[str, Any]:
    problems = []
    config, problem = read_json(folder / "config.json")
    if problem:
        problems.append(problem)
    elif not config.get("model_type"):
        problems.append("config.json has no model_type")
    code = sorted(set(code_files(config)))
    problems += [
        f"no {name}, which config.json names" for name in code if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        problems.append(f"no tokenizer ({', '.join(_TOKENIZERS)})")
    group.add(
        *("model.folder", "model folder", not problems),
        found="; ".join(problems) or f"{config.get('model_type')} at {folder}",
        needed="config.json, the code it names, a tokenizer",
        todo=f"{_AGAIN}ls -l {folder}",
    )
    return config


def read_json(path: Path) -> tuple[dict[str, Any], Optional[str]]:
    """A JSON object of a file, and what is wrong with it."""
    try:
        data = regular.parsed(path)
    except FileNotFoundError:
        return {}, f"no {path.name}"
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"{path.name} is no JSON: {error}"
    return (data, None) if isinstance(data, dict) else ({}, f"{path.name} is no JSON object")


def code_files(config: dict[str, Any]) -> list[str]:
    """The Python files of the folder that a configuration wants (auto_map)."""
    found = []
    for value in (config.get("auto_map") or {}).values():
        for name in value if isinstance(value, list) else [value]:
            # "repository--module.Class" takes the code from elsewhere
            if isinstance(name, str) and "--" not in name and "." in name:
                found.append(f"{name.rpartition('.')[0]}.py")
    return found


def _weights(group: Group, folder: Path) -> list[tensor_header.Entry]:
    """Whether all files are whole; each tensor's entry in their headers, none if they are not."""
    title, problems, shards = "weights whole", [], 0
    tensors: list[tensor_header.Entry] = []
    if (folder / _INDEX).is_file():
        index, problem = read_json(folder / _INDEX)
        wanted = index.get("weight_map")
        if problem or not isinstance(wanted, dict) or not wanted:
            problems.append(problem or f"{_INDEX} has no weight_map")
            wanted = {}
    else:
        wanted = {}
        files = sorted(path.name for path in folder.glob("*.safetensors"))
        if not files:
            others = sorted(p.name for kind in _OTHER_WEIGHTS for p in folder.glob(kind))
            if others:
                group.unknown(
                    *("model.weights", title),
                    f"the weights are no safetensors ({some(others, 3)}): not looked into",
                )
                return []
            problems.append("no *.safetensors")
        sharded = [name for name in files if "-of-" in name]
        if sharded:
            problems.append(f"no {_INDEX}, though there is {sharded[0]}")
        wanted = {f"*{number}": name for number, name in enumerate(files)}
    by_file: dict[str, list[str]] = {}
    for tensor, name in wanted.items():
        by_file.setdefault(str(name), []).append(tensor)
    for name, names in sorted(by_file.items()):
        there, problem = header(folder / name)
        shards += 1
        tensors += there.values()
        absent = [t for t in names if t not in there and not t.startswith("*")]
        if problem:
            problems.append(problem)
        elif absent:
            problems.append(f"{name} lacks {len(absent)} tensors of the index, such as {absent[0]}")
    group.add(
        *("model.weights", title, not problems),
        found=some(problems, 5, "; ")
        if problems
        else f"{shards} files, {len(tensors)} tensors, sizes as their headers say",
        needed="every file of the index, each as long as its header says",
        todo=f"{_AGAIN}rsync -a --checksum SOURCE/ {folder}/ (or sha256sum {folder}/*)",
    )
    return [] if problems else tensors


def header(path: Path) -> tuple[dict[str, tensor_header.Entry], Optional[str]]:
    """The tensors of a safetensors file, and what is wrong with it."""
    try:
        with regular.opened(path) as file:
            if file.read(len(_LFS)) == _LFS:
                return {}, f"{path.name} is a pointer of Git LFS, not the weights (git lfs pull)"
        return tensor_header.read(path)[0], None
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"{path.name} {error}"


def manifest(folder: Path) -> str:
    """A hash over names and sizes of the model's files, and the contents of index and config.

    Equal folders have equal hashes; the weights themselves are not read.
    """
    made = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or path.suffix not in _KINDS or not path.is_file():
            continue
        made.update(f"{name}\0{path.stat().st_size}\n".encode())
        if str(name) in (_INDEX, "config.json"):
            made.update(regular.data(path))
    return made.hexdigest()
