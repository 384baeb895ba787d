"""Every action of the argument parser of vLLM 0.9.0, as JSON on standard output.

Runs in the environment with that vLLM (vllm_parser.py); the twin (tests/twin) rebuilds the parser
from it. An action of a kind that is not known here ends this with an error.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Callable, Optional

_SIMPLE = ("str", "int", "float", "loads", "human_readable_int", "union_dict_and_str")


def inner(convert: Callable[..., Any]) -> Any:
    """What a converter of vLLM wraps."""
    return convert.__closure__[0].cell_contents  # type: ignore[index]


def type_name(convert: Optional[Callable[..., Any]], dest: str) -> Optional[str]:
    """A name for a converter that the twin knows too."""
    if convert is None:
        return None
    name = convert.__qualname__
    if name in _SIMPLE:
        return str(name)
    if name.startswith("parse_type."):
        return f"parse {inner(convert).__qualname__}"
    if dest == "kv_transfer_config":
        return "kv-transfer-config"
    if name.startswith("get_kwargs."):
        return "json"
    if name.startswith("optional_type."):
        wrapped = inner(convert).__qualname__
        if wrapped.startswith("get_kwargs."):
            return "json"
        return f"optional {wrapped.partition('.')[0].replace('parse_type', 'parse')}"
    raise ValueError(f"{dest}: an unknown converter {name}")


def plain(value: Any) -> Any:
    """A default as JSON can hold it. Those of objects are of no use to the twin."""
    return value if isinstance(value, (str, int, float, list, dict, type(None))) else None


def main() -> int:
    """Describe and print."""
    with contextlib.redirect_stdout(sys.stderr):
        from vllm.entrypoints.cli import serve

        command = serve.FlexibleArgumentParser()
        made = serve.ServeSubcommand().subparser_init(command.add_subparsers())
        module = {a.dest for a in serve.make_arg_parser(serve.FlexibleArgumentParser())._actions}
    described = [
        {
            "flags": list(action.option_strings),
            "dest": action.dest,
            "action": type(action).__name__,
            "type": type_name(action.type, action.dest),
            "nargs": action.nargs,
            "choices": None if action.choices is None else list(action.choices),
            "default": plain(action.default),
            "only_serve": action.dest not in module,
        }
        for action in made._actions
        if action.dest != "help"
    ]
    json.dump(described, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
