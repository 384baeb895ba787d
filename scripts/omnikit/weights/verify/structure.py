"""Whether a converted checkpoint has all its tensors, each with the dtype and shape of its form: by
its source, or by config.json alone; and whether config.json, and msmodelslim's description, say
what the tensors are.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import architecture, w8a8
from omnikit.weights.checkpoint.architecture import (
    CONVERTED,
    KEPT,
    MATRIX,
    PLAIN,
    SERVED,
    is_shared,
)
from omnikit.weights.checkpoint.hashes import MANIFEST
from omnikit.weights.checkpoint.headers import Checkpoint, Tensor
from omnikit.weights.checkpoint.w8a8 import (
    ASCEND,
    COMPRESSED,
    COPY,
    DESCRIPTIONS,
    DYNAMIC,
    FIXED,
    FLOAT,
    OFFSET,
    QUANTISE,
    SCALE,
    STATIC,
    WIDEN,
    Conversion,
)

# Forms: compressed-tensors, and ascend_v1 as msmodelslim makes it, and as others do.
NATIVE, MSMODELSLIM = COMPRESSED, "msmodelslim"
_FIELD = "quantization_config"
_SHOWN = 20
_STRANGE = " belongs to no part of this model"
# How scales were found, and how well it packs: nobody who loads the tensors reads these.
_TOLD = ("observer", "observer_kwargs", "global_compression_ratio", "version")
_DEFAULTS = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False}
_UNORDERED = ("ignore", "targets")
# What the tensors' shapes and the forward pass depend on.
_ARCHITECTURE = (
    *("num_hidden_layers", "num_nextn_predict_layers", "first_k_dense_replace", "moe_layer_freq"),
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size"),
    *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group"),
    *("topk_method", "scoring_func", "norm_topk_prob", "routed_scaling_factor"),
    *("num_attention_heads", "num_key_value_heads", "q_lora_rank", "kv_lora_rank"),
    *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "attention_bias", "hidden_act"),
    *("rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings"),
)
# name -> (what becomes of it, dtypes that it may have, shape)
Expected = dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]]
_PLAIN = ("BF16", "F32", "F16")  # what is not quantised may be
# Some patterns take longer than anybody waits, as (a+)+$: all are tried in a process that can be
# ended. It reads [patterns, names] and writes {pattern: names that it matches}.
_MATCHER = """
import json, re, sys
patterns, names = json.load(sys.stdin)
found = {}
for pattern in patterns:
    try:
        matches = re.compile(pattern).match
    except (re.error, OverflowError, RecursionError):
        continue  # it matches nothing then
    found[pattern] = [name for name in names if matches(name)]
json.dump(found, sys.stdout)
"""
_MATCH_S = 20.0


def native(target: Checkpoint, source: Optional[Conversion]) -> list[str]:
    """Of what convert_weights.py makes."""
    if not target.config:
        return []  # told already: it cannot be read
    # Not all that we name as ignored: what engines would look for in int8 otherwise.
    wanted_field = w8a8.new_config(target)[_FIELD]
    wanted_field["ignore"] = _kept_of(source) if source else w8a8.ignorable(target)
    try:
        told = _as_ours(target.config.get(_FIELD), wanted_field, target)
    except run.Outlasted:
        what = f"{_FIELD}: its patterns (re:) take longer than {_MATCH_S:g} s to match the layers"
        return [f"config.json: {what}: write simpler ones, or the layers' names"]
    problems = [
        f"config.json: {at} is {shown(found)}, expected {shown(wanted)}"
        for at, found, wanted in _differences(_FIELD, told, wanted_field)
        # What is to be ignored is told by the tensors; of a broken file they are not known.
        if source or not target.faults or at != f"{_FIELD}.ignore"
    ]
    return problems + (_architecture(target, source, False) if source else [])


def _kept_of(source: Conversion) -> list[str]:
    """Of the source's matrices those that are no integers in the result."""
    made = source.tensors()
    names = w8a8.ignorable(source.checkpoint)
    return [name for name in names if made[f"{name}.weight"][0] != "I8"]


def _as_ours(told: Any, wanted: dict[str, Any], target: Checkpoint) -> Any:
    """What compressed-tensors means by a configuration, in the words that our own has.

    Groups have any name and targets; targets and ignore are names, classes, or re: with a pattern;
    what is left out has the library's default (compressed-tensors, QuantizationArgs and is_match).
    """
    groups = told.get("config_groups") if isinstance(told, dict) else None
    if not isinstance(groups, dict) or not all(isinstance(one, dict) for one in groups.values()):
        return told or {}
    int8 = [one.name for one in target.tensors.values() if one.dtype == "I8" and len(one.shape) > 1]
    modules = [*(name.removesuffix(".weight") for name in int8), *wanted["ignore"]]
    lists = [told.get("ignore"), *(group.get("targets") for group in groups.values())]
    matches = _matches({word for words in map(_words, lists) for word in words}, modules)
    ignored = _matching(lists[0], modules, matches)
    made: dict[str, Any] = {}
    left = set(modules)
    for name, group in groups.items():
        used = _matching(group.get("targets"), modules, matches) - ignored
        left -= used
        if used:  # else it is of layers that are not here
            made[name] = {**group, "targets": ["Linear"]}
            for part in ("weights", "input_activations"):
                if isinstance(group.get(part), dict):
                    made[name][part] = _arguments(group[part])
            if made[name].get("format") == wanted["format"]:
                del made[name]["format"]
    first = next(iter(wanted["config_groups"].values()))
    good = [name for name, one in made.items() if not any(_differences("", one, first))]
    shown_as = {name: one for name, one in made.items() if name not in good}
    if good or not made:
        shown_as["group_0"] = first if good else {}
    return {**told, "config_groups": shown_as, "ignore": sorted(left)}


def _words(told: Any) -> list[str]:
    return [word for word in told if isinstance(word, str)] if isinstance(told, list) else []


def _matches(words: set[str], modules: Sequence[str]) -> Mapping[str, list[str]]:
    """What each pattern among the words matches. Raises Outlasted."""
    patterns = sorted(word[3:] for word in words if word.startswith("re:"))
    if not patterns:
        return {}
    argv = [sys.executable, "-I", "-c", _MATCHER]
    found = run.run(argv, stdin=json.dumps([patterns, modules]), timeout=_MATCH_S).out
    return {f"re:{pattern}": names for pattern, names in json.loads(found).items()}


def _matching(told: Any, modules: Sequence[str], matches: Mapping[str, Sequence[str]]) -> set[str]:
    """Which modules are meant. All that are asked about here are Linear layers."""
    words = _words(told)
    if "Linear" in words:
        return set(modules)
    return set(words).intersection(modules).union(*(matches.get(word, ()) for word in words))


def _arguments(told: dict[str, Any]) -> dict[str, Any]:
    """With defaults; without what only says how scales were found."""
    made = {**_DEFAULTS, **{key: value for key, value in told.items() if value is not None}}
    if made.get("group_size") == -1:
        del made["group_size"]
        made.setdefault("strategy", "channel")
    if made.get("actorder") in ("weight", "static"):
        del made["actorder"]
    return made


def msmodelslim(target: Checkpoint, source: Optional[Conversion]) -> list[str]:
    """Of what msmodelslim makes and finish_checkpoint.py finishes."""
    if not target.config:
        return []
    problems = []
    names = target.config.get("architectures")
    if is_unfinished(target.config):
        what = f"is {names!r}, expected {[SERVED]!r}"
        problems.append(f"config.json: architectures {what}: run finish_checkpoint.py")
    elif not isinstance(names, list):
        problems.append(f"config.json: architectures is {names!r}, expected a list")
    told = target.config.get("quantization_config")
    if isinstance(told, dict) and told.get("quant_method") == "fp8":
        problems.append(
            "config.json: quantization_config is the source's (fp8), expected none: no tensor here"
            " is fp8"
        )
    return problems + (_architecture(target, source, True) if source else [])


def is_unfinished(config: dict[str, Any]) -> bool:
    """Whether config.json is as msmodelslim leaves it (finish_checkpoint.py edits it)."""
    names = config.get("architectures")
    return names in (CONVERTED, [CONVERTED])


def _differences(at: str, found: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """Fields that are not as they must be. What is null, empty or false may be left out."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted:
        for key in dict.fromkeys([*wanted, *found]):
            if key not in _TOLD:
                yield from _differences(f"{at}.{key}", found.get(key), wanted.get(key))
    elif at.rpartition(".")[2] in _UNORDERED and isinstance(found, list):
        if sorted(map(str, found)) != sorted(wanted or []):
            yield at, found, wanted
    elif found != wanted and (found or wanted):
        yield at, found, wanted


def _architecture(target: Checkpoint, source: Conversion, lenient: bool) -> list[str]:
    """Where config.json is not the source's. lenient: what is left out has its default."""
    problems = []
    for key in _ARCHITECTURE:
        found, wanted = target.config.get(key), source.checkpoint.config.get(key)
        if found == wanted or (lenient and None in (found, wanted)):
            continue
        problem = f"config.json: {key} is {shown(found)}, expected {shown(wanted)} as in the source"
        more = lenient and key == "num_hidden_layers" and found == (wanted or 0) + 1
        problems.append(f"{problem}: run finish_checkpoint.py" if more else problem)
    return problems


def shown(value: Any) -> str:
    """Not more of a value than a person reads."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def description(target: Checkpoint, quantised: Sequence[str]) -> list[str]:
    """msmodelslim's own list of what each tensor is, against what it is."""
    try:
        name, told = w8a8.described(target.folder)
    except InputError as error:
        return [f"{Path(error.where or '').name} {error.what}"]
    if not name:
        return [f"there is no {DESCRIPTIONS}"]
    int8 = set(quantised)
    parts = {f"{matrix}{end}" for matrix in quantised for end in (SCALE, OFFSET)}
    problems = []
    for tensor in target.tensors.values():
        kind = told.get(tensor.name)
        if kind is None:
            if not tensor.name.endswith("norm.bias"):
                problems.append(f"{name} does not name {tensor.name}")
        elif tensor.name in int8 and kind == FIXED:
            at = tensor.name.removesuffix(".weight")
            lost = [end for end in STATIC if f"{at}{end}" not in target.tensors]
            if lost:
                what = f"but there is no {at}{lost[0]}: is it {DYNAMIC}?"
                problems.append(f"{name} calls {tensor.name} {kind}, {what}")
        elif tensor.name in int8 and kind == FLOAT:
            what = f"but it is int8, and activations are quantised as they come ({DYNAMIC})"
            problems.append(f"{name} calls {tensor.name} {kind}, {what}")
        elif tensor.dtype in _PLAIN and tensor.name not in parts and kind == DYNAMIC:
            problems.append(f"{name} calls {tensor.name} {kind}, but it is {tensor.dtype} (FLOAT)")
    there = target.tensors.keys() | target.index.keys()
    problems += [
        f"{name} tells of {one}, which is not there"
        for one, kind in told.items()
        if one not in there and one.endswith((".weight", SCALE, OFFSET)) and kind is not None
    ]
    more = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"{name}: {more} more like these"] if more > 0 else [])


@dataclass(frozen=True)
class Structure:
    """form: NATIVE, MSMODELSLIM or ASCEND. problems: each a sentence. quantised: names of int8
    matrices. unknown: what could not be looked into, each a sentence.
    """

    form: str
    problems: list[str]
    quantised: list[str]
    unknown: list[str]


def look(target: Checkpoint, source: Optional[Conversion]) -> Structure:
    """Compare with the source, or with what the configuration says where there is none.

    Raises InputError: neither of the two forms.
    """
    form = recognise(target)
    problems, unknown = files(target), []
    problems += (native if form == NATIVE else msmodelslim)(target, source)
    quantised = sorted(
        name
        for name, tensor in target.tensors.items()
        if tensor.dtype == "I8" and len(tensor.shape) == 2
    )
    told: dict[str, Any] = {}
    if form != NATIVE:
        with suppress(InputError):  # described() is asked again below, and says it
            told = w8a8.described(target.folder)[1]
    other = {
        name
        for name, kind in told.items()
        if name in target.tensors and kind not in (DYNAMIC, FIXED, FLOAT)
    }
    if other:
        kinds = sorted({str(told[name]) for name in other})
        unknown.append(f"{len(other)} tensors are {', '.join(kinds)}: of these only files are seen")
    expected: Expected = {}
    if source:
        expected = _of_source(source)
    elif target.config:
        try:
            expected = _of_config(target)
        except InputError as error:
            if "architectures" not in error.what:
                raise
            names = target.config.get("architectures")
            unknown.append(
                f"the layers of {names!r} are not known here: its tensors' names and"
                " shapes are not held against config.json"
            )
            expected = {
                name: (QUANTISE if one.dtype == "I8" else COPY, (one.dtype,), one.shape)
                for name, one in target.tensors.items()
                if not _companion(target, name) and len(one.shape) != 0
            }
    if expected:
        problems += [
            problem
            for problem in _names(target, expected)
            if not (problem.endswith(_STRANGE) and problem.partition(" ")[0] in told)
        ]
        for name in sorted(target.tensors.keys() & expected.keys() - other):
            problems += _tensor(target, target.tensors[name], expected, form)
    if form != NATIVE:
        problems += description(target, quantised)
    return Structure(form, problems, quantised, unknown)


def files(target: Checkpoint) -> list[str]:
    """What is wrong with the files, in the words of a report: they are named from the folder on."""
    problems = [
        f"{(error.where or '').removeprefix(f'{target.folder}/')} {error.what}".rstrip(".")
        for error in target.faults
    ]
    there = {path.name for path in target.folder.glob("*.safetensors")}
    return problems + [
        f"{name} does not belong here: the index does not name it"
        for name in sorted(there.difference(target.shards))
    ]


def _of_source(source: Conversion) -> Expected:
    """From the source's tensors. One that is int8 already has its scales and offsets beside it."""
    pieces = [piece for shard in source.shards for piece in shard.pieces]
    found = {
        one.source.name: (
            QUANTISE if one.source.dtype == "I8" else one.what,
            (one.source.dtype,),
            one.source.shape,
        )
        for one in pieces
    }
    return {name: one for name, one in found.items() if not _companion(source.checkpoint, name)}


def _of_config(target: Checkpoint) -> Expected:
    """From config.json. Raises InputError: not this family, or a number missing."""
    config = target.config
    if is_unfinished(config):
        config = _finished(target)
    w8a8.family(config, target.folder)
    what = {MATRIX: (QUANTISE, ("BF16",)), KEPT: (WIDEN, ("BF16",)), PLAIN: (COPY, _PLAIN)}
    there = target.tensors.keys() | target.index.keys()
    return {
        name: (*what[kind], shape)
        for name, (kind, shape) in architecture.tensors(config, target.folder).items()
        if name in there or not is_shared(name)
    }


def _finished(target: Checkpoint) -> dict[str, Any]:
    """As finish_checkpoint.py makes it. The MTP layer is counted where that many layers lie here
    with it.
    """
    found = (re.match(r"model\.layers\.(\d{1,9})\.", name) for name in target.tensors)
    there = max((int(match[1]) + 1 for match in found if match), default=0)
    config = {**target.config, "architectures": [architecture.SERVED]}
    if config.get("num_nextn_predict_layers") and config.get("num_hidden_layers") == there:
        config["num_hidden_layers"] = there - 1
    return config


def recognise(target: Checkpoint) -> str:
    """Which form a folder has. Raises InputError: none of those known."""
    names = target.tensors.keys() | target.index.keys()
    if w8a8.format_of(target) == ASCEND:
        return MSMODELSLIM if w8a8.numbers_of(target) == w8a8.SLIM else ASCEND
    if any(name.endswith(f".weight{SCALE}") for name in names):
        return NATIVE
    if (target.folder / MANIFEST).exists():
        return NATIVE
    raise InputError(
        "holds no int8 matrix with scales: it is not converted.",
        where=str(target.folder),
        todo="invoke convert-weights",
    )


def _names(target: Checkpoint, expected: Expected) -> list[str]:
    """Tensors that lack, but for those of files that are told of already, and strangers."""
    names = {name for name in target.tensors if not _companion(target, name)}
    return architecture.missing(sorted(expected.keys() - names - target.index.keys())) + [
        f"{name}{_STRANGE}" for name in sorted(names - expected.keys())
    ]


def _tensor(target: Checkpoint, tensor: Tensor, expected: Expected, form: str) -> list[str]:
    """Dtype, shape and scale of one."""
    what, dtypes, shape = expected[tensor.name]
    problems = []
    if tensor.shape != shape:
        found = f"{tensor.name} has shape {list(tensor.shape)}"
        problems.append(f"{found}, expected {list(shape)}")
    if form != NATIVE and what in (QUANTISE, WIDEN):
        what = QUANTISE if tensor.dtype == "I8" else WIDEN  # its description says which
    if what == QUANTISE:
        problems += _scale(target, tensor, form)
    wanted = {QUANTISE: ("I8",), WIDEN: ("BF16",), COPY: dtypes}[what]
    if tensor.dtype not in wanted:
        found = f"{tensor.name} has dtype {tensor.dtype}"
        problems.append(f"{found}, expected {' or '.join(wanted)}")
    return problems


def _companion(target: Checkpoint, name: str) -> bool:
    """Whether a tensor is the scale or offset of an int8 matrix that is there, or of what goes into
    it.
    """
    for end in STATIC:
        matrix = target.tensors.get(f"{name.removesuffix(end)}.weight")
        if name.endswith(end) and matrix is not None and matrix.dtype == "I8":
            return True
    for end in (SCALE, OFFSET):
        if name.endswith(f".weight{end}"):
            matrix = target.tensors.get(name[: -len(end)])
            # A matrix in a file that cannot be read: that file is told of.
            return matrix.dtype == "I8" if matrix else name[: -len(end)] in target.index
    return False


def _scale(target: Checkpoint, matrix: Tensor, form: str) -> list[str]:
    problems = []
    for end in (SCALE, OFFSET) if form != NATIVE else (SCALE,):
        name = f"{matrix.name}{end}"
        tensor = target.tensors.get(name)
        if tensor is None:
            if name not in target.index:
                problems.append(f"{matrix.name} has no {name.rpartition('.')[2]}")
            continue
        dtypes = ("F32", "BF16", "F16")
        if tensor.dtype not in dtypes or tensor.shape != (matrix.shape[0], 1):
            found = f"{tensor.dtype} {list(tensor.shape)}"
            expected = f"{' or '.join(dtypes)} [{matrix.shape[0]}, 1]"
            problems.append(f"{tensor.name} is {found}, expected {expected}")
    return problems
