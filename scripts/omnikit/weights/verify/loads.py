"""What a folder of weights is, which engines load it with which flags, and what is wrong with it:
by its headers, configuration and description alone, so that 700 GB take seconds.

Rules: vllm-ascend's quantisation code of v0.9.1 and v0.23.0 and its documentation, omni-infer
v0.4.1's converter and loader, vLLM 0.32's CPU engine. Where none of them says it, it is unknown.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError, ManyErrors, ToolkitError
from hostkit.base.log import size_text, table
from hostkit.checks.model import code_files
from omnikit.weights.checkpoint import architecture, headers, w8a8
from omnikit.weights.checkpoint.hashes import STAGING, published
from omnikit.weights.checkpoint.headers import Checkpoint, Tensor
from omnikit.weights.checkpoint.w8a8 import ASCEND, COMPRESSED, DYNAMIC, FIXED, FLOAT
from omnikit.weights.verify import structure

PLAIN, BLOCKS = "not quantised", "FP8 in blocks"
INT8, INT8_FIXED = "W8A8 INT8, dynamic", "W8A8 INT8, static"
OMNI, VLLM_ASCEND, VLLM_CPU, VLLM_GPU = "omni-infer", "vllm-ascend", "vLLM on CPU", "vLLM on GPU"
_ENGINES = (OMNI, VLLM_ASCEND, VLLM_CPU, VLLM_GPU)
# What vllm-ascend has a method for, by its description (v0.23.0); those of MXFP run on A5 alone.
_ASCEND_KINDS = (
    *(DYNAMIC, FIXED, "W8A8_MIX", "W4A8_DYNAMIC", "W4A4_DYNAMIC", "W4A4_FLATQUANT_DYNAMIC"),
    *("W8A16", "W4A16"),
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_UNKNOWN = "not confirmed"
# (loads: True, False or None for unknown; releases; flags; why)
Answer = tuple[Optional[bool], str, str, str]


def check(folder: Path) -> dict[str, Any]:
    """The findings: {kind, format, tensors, files, bytes, engines, notes, problems, ok, …}.

    Raises InputError: no checkpoint at all.
    """
    found = headers.look(folder)
    method, kinds, name = _described(found)
    kind, form = _kind(found, method, kinds)
    problems, notes = _wrong(found, kind)
    problems += _dtype(found)
    problems += [
        f"there is no {one}, which config.json names (auto_map)"
        for one in sorted(set(code_files(found.config)))
        if not (folder / one).is_file()
    ]
    if any((folder / STAGING).glob("**/*.incomplete")):
        problems.append("a download into this folder is not finished: invoke download-weights")
    if form == ASCEND and name and name != w8a8.DESCRIPTION:
        problems.append(
            f"{name} is not found by vllm-ascend, which looks for {w8a8.DESCRIPTION}: mv {name}"
            f" {w8a8.DESCRIPTION}"
        )
    if not any((folder / one).is_file() for one in _TOKENIZERS):
        notes.append(f"no tokenizer here ({', '.join(_TOKENIZERS)}): servers need --tokenizer DIR")
    layers = found.config.get("num_hidden_layers")
    if form == ASCEND and isinstance(layers, int):
        int8 = [name for name, one in found.tensors.items() if one.dtype == "I8"]
        if any(architecture.layer_of(name) >= layers for name in int8):
            notes.append(
                "the MTP layer is int8, as msmodelslim's --quant_mtp mix makes it: for"
                f" {VLLM_ASCEND} v0.9 {_UNKNOWN}"
            )
    hashes, by = published(folder)
    vouched = sum(shard in hashes for shard in found.shards)
    notes.append(
        f"published hashes of {vouched} of {len(found.shards)} files of weights ({by}), not read"
        " here: invoke verify-weights"
        if vouched
        else "no published hashes: a changed byte could not be noticed"
    )
    return {
        "path": str(folder),
        "architecture": _architecture(found),
        "kind": kind,
        "format": form,
        "matrices": _matrices(found),
        "described": dict(kinds),
        "tensors": len(found.tensors),
        "files": len(found.shards),
        "bytes": sum(found.sizes.values()),
        "engines": [_told(engine, found, kind, form, kinds) for engine in _ENGINES],
        "notes": notes,
        "problems": list(dict.fromkeys(problems)),
        "ok": not problems,
    }


def _architecture(found: Checkpoint) -> Optional[str]:
    names = found.config.get("architectures")
    one = names[0] if isinstance(names, list) and names else names
    return one if isinstance(one, str) else None


def _described(found: Checkpoint) -> tuple[dict[str, Any], Counter[str], str]:
    """quantization_config; how many matrices msmodelslim's description calls what; its name."""
    method = found.config.get("quantization_config")
    name = ""
    told: dict[str, Any] = {}
    try:
        name, told = w8a8.described(found.folder)
    except InputError as error:
        name = Path(error.where or "").name  # the structure tells of it
    kinds = Counter(
        str(kind)
        for tensor, kind in told.items()
        if tensor.endswith(".weight") and kind != FLOAT and tensor in found.tensors
    )
    return (method if isinstance(method, dict) else {}), kinds, name


def _matrices(found: Checkpoint) -> dict[str, int]:
    """How many matrices have which dtype."""
    return dict(Counter(one.dtype for one in found.tensors.values() if _is_matrix(one)))


def _is_matrix(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1 and tensor.name.endswith(".weight")


def _kind(found: Checkpoint, method: dict[str, Any], kinds: Counter[str]) -> tuple[str, str]:
    """What it is, and the format: one of w8a8.FORMATS, another quant_method, or empty."""
    if w8a8.format_of(found) == ASCEND:
        if set(kinds) <= {DYNAMIC}:
            return INT8, ASCEND
        return (INT8_FIXED if set(kinds) <= {DYNAMIC, FIXED} else " + ".join(sorted(kinds))), ASCEND
    told = str(method.get("quant_method") or "")
    if w8a8.is_quantised(found) and told in ("", COMPRESSED):
        groups = method.get("config_groups")
        parts = list(groups.values()) if isinstance(groups, dict) else []
        inputs = [one.get("input_activations") for one in parts if isinstance(one, dict)]
        fixed = any(isinstance(one, dict) and not one.get("dynamic") for one in inputs)
        return (INT8_FIXED if fixed else INT8), COMPRESSED
    if any(one.dtype == "F8_E4M3" for one in found.tensors.values()):
        blocks = any(name.endswith(w8a8.SCALE_INV) for name in found.tensors)
        return (BLOCKS if blocks else "FP8"), told
    if not told:
        return PLAIN, ""
    return f"{told} {method.get('format') or ''}".strip(), told


def _wrong(found: Checkpoint, kind: str) -> tuple[list[str], list[str]]:
    """Problems, and what was not looked into."""
    if kind == INT8 or w8a8.format_of(found) == ASCEND:
        told = structure.look(found, None)
        return told.problems, [f"not looked into: {one}" for one in told.unknown]
    problems = structure.files(found)
    if kind not in (PLAIN, BLOCKS):
        return problems, [f"not looked into: how {kind} describes its tensors"]
    try:
        w8a8.family(found.config, found.folder)
        if kind == BLOCKS:
            w8a8.plan(found)
        else:
            architecture.check_complete(found)
        for name, (_, shape) in architecture.tensors(found.config, found.folder).items():
            one = found.tensors.get(name)
            if one is not None and one.shape != shape:
                problems.append(f"{name} has shape {list(one.shape)}, expected {list(shape)}")
    except ManyErrors as error:
        return problems + [_sentence(one, found) for one in error.errors], []
    except InputError as error:
        if "architectures" in error.what:
            names = found.config.get("architectures")
            return problems, [f"not looked into: which tensors {names!r} has"]
        problems.append(_sentence(error, found))
    return problems, []


def _sentence(error: ToolkitError, found: Checkpoint) -> str:
    place = (error.where or "").removeprefix(str(found.folder)).lstrip("/")
    return f"{place}{': ' if place else ''}{error.what}".rstrip(".")


def _dtype(found: Checkpoint) -> list[str]:
    """config.json against the tensors that are not quantised."""
    told = found.config.get("torch_dtype") or found.config.get("dtype")
    counts = Counter(
        one.dtype for one in found.tensors.values() if one.dtype in _DTYPES and _is_matrix(one)
    )
    if not counts or told is None:
        return []
    most = _DTYPES[counts.most_common(1)[0][0]]
    said = str(told).removeprefix("torch.")
    if said == most:
        return []
    return [
        f"config.json: torch_dtype is {said}, but the tensors are {most}: servers compute in it"
    ]


def _told(
    engine: str, found: Checkpoint, kind: str, form: str, kinds: Counter[str]
) -> dict[str, Any]:
    loads, releases, flags, why = _answer(engine, found, kind, form, kinds)
    if loads is not False and not (found.config.get("torch_dtype") or found.config.get("dtype")):
        flags = f"{flags} --dtype bfloat16".strip()
    return {"engine": engine, "loads": loads, "releases": releases, "flags": flags, "why": why}


def _answer(engine: str, found: Checkpoint, kind: str, form: str, kinds: Counter[str]) -> Answer:
    if kind == PLAIN:
        return True, "all", "", ""
    if form == ASCEND:
        return _of_ascend(engine, kinds)
    experts = any(".experts." in name for name in found.tensors)
    if form == COMPRESSED and kind == INT8:
        if engine == VLLM_ASCEND:
            since = "v0.14 and newer" if experts else "v0.12 and newer"
            return True, since, "", "or --quantization compressed-tensors"
        if engine == VLLM_CPU and experts:
            return False, "", "", "it has no int8 experts (vLLM 0.32)"
        if engine == OMNI:
            known = _architecture(found) == architecture.SERVED
            return (True if known else None), "v0.4.1 and newer", "", "" if known else _UNKNOWN
        return True, "all", "", ""
    if form == COMPRESSED and engine == VLLM_ASCEND and kind == INT8_FIXED:
        return True, "v0.12 and newer", "", "or --quantization compressed-tensors"
    if "FP8" in kind and engine in (OMNI, VLLM_ASCEND):
        return False, "", "", "Ascend A2 and A3 do not compute FP8: invoke convert-weights"
    if kind == BLOCKS and engine == VLLM_GPU:
        return True, "all", "", ""
    return None, "", "", _UNKNOWN


def _of_ascend(engine: str, kinds: Counter[str]) -> Answer:
    if engine in (VLLM_CPU, VLLM_GPU):
        todo = f"repack it: invoke convert-weights --format {COMPRESSED}"
        return False, "", "", f"no method for it; {todo}" if set(kinds) <= {DYNAMIC} else ""
    if engine == OMNI:
        return None, "", "", f"{_UNKNOWN}: its own converter makes {COMPRESSED}"
    odd = sorted(set(kinds).difference(_ASCEND_KINDS))
    if odd:
        return None, "", "--quantization ascend", f"{', '.join(odd)}: {_UNKNOWN}"
    return True, "v0.9 and newer", "--quantization ascend", "v0.18 and newer find it by themselves"


def as_text(told: dict[str, Any]) -> str:
    """For a person."""
    form = f", {told['format']}" if told["format"] and told["format"] not in told["kind"] else ""
    counts = ", ".join(f"{n} {dtype}" for dtype, n in told["matrices"].items())
    lines = [
        f"{told['path']}: {told['architecture'] or 'no architecture named'}; {told['kind']}{form}",
        f"{told['tensors']} tensors in {told['files']} files, {size_text(told['bytes'])};"
        f" matrices: {counts}",
    ]
    words = {True: "yes", False: "no", None: "unknown"}
    rows = []
    for one in told["engines"]:
        flags = one["flags"] or ("none" if one["loads"] else "")
        rows.append([one["engine"], words[one["loads"]], one["releases"], flags, one["why"]])
    lines.append(table(rows, ["engine", "loads it", "releases", "flags", ""]))
    lines += [f"note: {one}" for one in told["notes"]]
    lines += [f"problem: {one}" for one in told["problems"][:20]]
    more = len(told["problems"]) - 20
    if more > 0:
        lines.append(f"and {more} more problems (--json shows all)")
    lines.append(f"{told['path']}: {'good' if told['ok'] else 'NOT GOOD'}, by headers alone")
    return "\n".join(lines)
