"""The argument parser of the twin's vLLM, rebuilt from a description of the real one.

The real one takes 12 s and a 2 GB environment to load. So tests load it once, write down every
action of it (tests/parser/describe_arguments.py) and ship that; here the same actions are given to
the same argparse. A test holds both against each other (tests/test_twin_vllm.py). What is written
by hand are vLLM's converters (engine/arg_utils.py) and what FlexibleArgumentParser does to words
(utils.py: `_` in a flag's name is `-`).

Of vLLM 0.23.0 the description has what the twin acts on, and what else is said is passed over: the
real parser reads all lines of the shipped environments and recipes (test_vllm_ascend_arguments.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from vllm.twin.release import RELEASE

DESCRIPTION = Path(__file__).with_name("arguments.json")
_ROLES = ("kv_producer", "kv_consumer", "kv_both")


class Parser(argparse.ArgumentParser):
    """vllm/utils.py, FlexibleArgumentParser, without configuration files and dotted keys."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = []
        for word in args:
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                word = f"--{name[2:].replace('_', '-')}{equals}{value}"
            words.append(word)
        return super().parse_known_args(words, namespace)


def _loads(text: str) -> Any:
    return json.loads(text)


_loads.__name__ = "loads"  # argparse names the converter in its errors


def _or_pairs(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """engine/arg_utils.py, parse_type: JSON, or the older KEY=NUMBER,KEY=NUMBER."""

    def _parse_type(text: str) -> Any:
        try:
            if convert is _loads and not re.match("^{.*}$", text):
                return _pairs(text)
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"Value {text} cannot be converted to {convert}."
            ) from error

    return _parse_type


def _pairs(text: str) -> dict[str, int]:
    found = {}
    for item in text.split(","):
        parts = [part.lower().strip() for part in item.split("=")]
        if len(parts) != 2:
            raise argparse.ArgumentTypeError("Each item should be in the form KEY=VALUE")
        try:
            found[parts[0]] = int(parts[1])
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"Failed to parse value of item {parts[0]}={parts[1]}"
            ) from error
    return found


def _optional(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def _optional_type(text: str) -> Any:
        return None if text in ("", "None") else _or_pairs(convert)(text)

    return _optional_type


def _dict_or_text(text: str) -> Any:
    return _optional(_loads)(text) if re.match("^{.*}$", text) else text


def _kv_transfer(text: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """config.py, KVTransferConfig: its fields and its __post_init__. more: later fields."""
    given = json.loads(text)
    known: tuple[str, ...] = (*more,)
    known += ("kv_connector", "engine_id", "kv_buffer_device", "kv_buffer_size", "kv_role")
    known += ("kv_rank", "kv_parallel_size", "kv_ip", "kv_port", "kv_connector_extra_config")
    known += ("kv_connector_module_path",)
    for name in given:
        if name not in known:
            raise ValueError(f"Unexpected keyword argument: {name}")
    role = given.get("kv_role")
    if role is not None and role not in _ROLES:
        raise ValueError(f"Unsupported kv_role: {role}. Supported roles are {_ROLES}")
    if given.get("kv_connector") is not None and role is None:
        raise ValueError(
            f"Please specify kv_disagg_role when kv_connector is set, supported roles are {_ROLES}"
        )
    return dict(given)


def _later_kv_transfer(text: str) -> dict[str, Any]:
    """That of vLLM 0.23.0, which reads digits in a text as a number."""
    given = _kv_transfer(text, ("kv_load_failure_policy",))
    if "kv_port" in given:
        given["kv_port"] = int(given["kv_port"])
    return given


def _with_suffix(text: str) -> int:
    """engine/arg_utils.py, human_readable_int."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG])", text.strip())
    if not match:
        return int(text.strip())
    power = "kmg".index(match[2].lower()) + 1
    if match[2].islower():
        return int(float(match[1]) * 1000**power)
    return int(match[1]) * 1024**power


_with_suffix.__name__ = "human_readable_int"
_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "loads": _loads,
    "human_readable_int": _with_suffix,
    "union_dict_and_str": _dict_or_text,
    "optional str": _optional(str),
    "optional int": _optional(int),
    "optional float": _optional(float),
    "parse loads": _or_pairs(_loads),
    "optional parse": _optional(_or_pairs(_loads)),
    "optional union_dict_and_str": _optional(_dict_or_text),
    "kv-transfer-config": _optional(_kv_transfer),
    "kv-transfer-config 0.23": _optional(_later_kv_transfer),
    "json": _optional(_loads),
}


class _Both(argparse.Action):
    """argparse.BooleanOptionalAction: --flag and --no-flag."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, not option.startswith("--no-"))


_ACTIONS: dict[str, Any] = {
    "_StoreAction": "store",
    "_StoreTrueAction": "store_true",
    "_AppendAction": "append",
    "BooleanOptionalAction": _Both,
    "LoRAParserAction": "store",
    "PromptAdapterParserAction": "store",
}


def parser(description: Sequence[dict[str, Any]], by_module: bool) -> Parser:
    """The parser of `vllm serve`, or that of the module: it has no positional."""
    prog = "api_server.py" if by_module else "vllm serve"
    usage = None if by_module else "vllm serve [model_tag] [options]"
    made = Parser(prog=prog, usage=usage)
    for entry in description:
        if entry["only_serve"] and by_module:
            continue
        given: dict[str, Any] = {"action": _ACTIONS[entry["action"]], "default": entry["default"]}
        if entry["action"] == "BooleanOptionalAction":
            given["nargs"] = 0
        elif entry["action"] != "_StoreTrueAction":
            given.update(type=_TYPES[entry["type"]], nargs=entry["nargs"])
            given["choices"] = entry["choices"]
        if entry["flags"]:
            given["dest"] = entry["dest"]
        made.add_argument(*(entry["flags"] or [entry["dest"]]), **given)
    return made


def read(words: Sequence[str], by_module: bool = False, path: Optional[Path] = None) -> Any:
    """Values of a server's words; it exits with the parser's message where they are wrong."""
    if not by_module and (not words or words[0] != "serve"):
        sys.stderr.write(f"vllm: error: argument subparser: invalid choice: {list(words[:1])}\n")
        sys.exit(2)
    words = words if by_module else words[1:]
    if not by_module and "--model" in words:
        raise ValueError(
            "With `vllm serve`, you should provide the model as a positional argument or in a"
            " config file instead of via the `--model` option."
        )
    made = parser(json.loads((path or DESCRIPTION).read_text()), by_module)
    if RELEASE["engine"] == "omni-infer":
        values = made.parse_args(words)
    else:
        values, _ = made.parse_known_args(words)
    if getattr(values, "model_tag", None) is not None:
        values.model = values.model_tag
    return values
