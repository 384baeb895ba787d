"""Checks of a model's folder: configuration, code, tokenizer, every shard whole, quantisation.

A truncated shard can load as garbage, so each file's header is held against the file's size. The
weights themselves are not read.
An engine that finds no description loads INT8 weights as if they were not quantised and runs out of
memory; one that cannot compute FP8 says so only after minutes. Both can be seen before the start.
Sources: compressed-tensors' formats, vLLM's model config (_verify_quantization), and vllm-ascend's
maintainers on FP8 (issue 1526: Ascend A2 and A3 have none).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

from hostkit.base.errors import ToolkitError
from hostkit.base.log import some
from hostkit.checks.base import Group
from hostkit.files import regular, tensor_header
from hostkit.files.tensor_header import Entry

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
# Of files of these kinds the manifest has name and size; of a README it has nothing.
_KINDS = (".safetensors", ".json", ".py", ".model", ".txt", ".jinja", ".tiktoken", ".bin", ".pt")
_LFS = b"version https://git-lfs"
_AGAIN = (
    "invoke distribute-weights, where another host has it whole; else copy or download the model"
    " again, and compare with its source: "
)


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
            todo="invoke distribute-weights, where another host has it, or invoke download-weights;"
            f" or mkdir -p {folder.parent}, then copy it there: rsync -a SOURCE/ {path}/",
        )
        return
    config = _folder(group, folder)
    tensors = _weights(group, folder)
    if tensors:
        look_quantised(group, folder, config, tensors)
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
    found, told = [], config.get("auto_map")
    for value in told.values() if isinstance(told, dict) else ():
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


NAME, TITLE = "model.quantisation", "weights as they are described"
# msmodelslim's own description, which vllm-ascend's method "ascend" reads.
_DESCRIPTIONS = "quant_model_description*.json"
_ASCEND = "ascend"
_SHOWN = {"I8": "INT8", "F8_E4M3": "FP8"}
# The type of a quantised matrix by what describes it; nothing is known here of other methods.
_BY_METHOD = {"fp8": "F8_E4M3"}
_BY_FORMAT = {"int-quantized": "I8", "float-quantized": "F8_E4M3"}


def look_quantised(
    group: Group, folder: Path, config: Mapping[str, Any], tensors: Iterable[Entry]
) -> None:
    """The check. config: of config.json; tensors: all entries of the files' headers."""
    counts = dict.fromkeys(_SHOWN, 0)
    for tensor in tensors:
        if tensor.dtype in counts and len(tensor.shape) >= 2:
            counts[tensor.dtype] += 1
    described = config.get("quantization_config")
    described = described if isinstance(described, dict) else {}
    method = str(described.get("quant_method") or "")
    files = sorted(path.name for path in folder.glob(_DESCRIPTIONS))
    wanted = _BY_METHOD.get(method)
    if method == "compressed-tensors":
        wanted = _BY_FORMAT.get(str(described.get("format")))
    there = ", ".join(f"{n} {_SHOWN[dtype]} matrices" for dtype, n in counts.items() if n)
    says = method or (files[0] if files else "")
    problem = _problem(group, folder, there, says, wanted, counts) or _flag(group, method, files)
    if problem is None:
        found = f"{there or 'no INT8 or FP8 matrices'}; described as: {says or 'not quantised'}"
        group.add(NAME, TITLE, True, found=found)
        return
    what, todo, required = problem
    needed = "weights, their description and --quantization of the same kind"
    group.add(NAME, TITLE, False, found=what, needed=needed, todo=todo, required=required)


Problem = Optional[tuple[str, str, bool]]


def _problem(
    group: Group,
    folder: Path,
    there: str,
    says: str,
    wanted: Optional[str],
    counts: Mapping[str, int],
) -> Problem:
    """What is wrong in the folder itself: (what, todo, whether that is certain to fail)."""
    again = (
        "have config.json as it came with the weights (invoke convert-weights writes it), or the"
        f" weights of this config.json; look: grep -A3 quantization_config {folder}/config.json"
    )
    if there and not says:
        what = (
            f"{there}, but neither quantization_config in config.json nor {_DESCRIPTIONS} says so:"
            " they would be loaded as if they were not quantised"
        )
        return what, again, True
    if wanted and not counts[wanted]:
        return f"config.json says {says}, but no matrix is {_SHOWN[wanted]}", again, True
    if wanted == "F8_E4M3" and group.given["device_kind"] == "npu":
        made = f"{str(folder).rstrip('/')}-w8a8"
        todo = (
            f"of DeepSeek-V3's family: invoke convert-weights --source {folder} --target {made},"
            f" then model.path: {made}; of others take INT8 or BF16 weights"
        )
        return f"{there}: Ascend A2 and A3 do not compute FP8", todo, True
    return None


def _flag(group: Group, method: str, files: list[str]) -> Problem:
    """What the servers are told, against what the folder says. Engines may know more: a warning."""
    told = set(group.given["quantization"])
    if method and told - {method}:
        other = ", ".join(sorted(told - {method}))
        return (
            f"the servers are told --quantization {other}, config.json says {method}",
            "leave server.args.quantization away: the engine reads config.json",
            False,
        )
    if files and not method and _ASCEND not in told and group.given["device_kind"] == "npu":
        return (
            f"{files[0]} describes the weights, config.json does not, and no server is told"
            f" --quantization {_ASCEND}: they may be loaded as if they were not quantised",
            f"--set server.args.quantization={_ASCEND}, or have quantization_config in config.json",
            False,
        )
    return None
