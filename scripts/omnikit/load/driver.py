"""Runs in the engine's Python: vLLM's own load generator, several loads in one process.

The arguments are those of "vllm bench serve", one load after the other with "---" between them. A
process for each would import the engine each time, and the "vllm" command of some builds does not
start. Works with vLLM 0.9 to 0.32; of this toolkit nothing is needed, so that the text of this file
can be sent to a host or a container: python - ARGUMENTS < driver.py
Prints "omnikit-load: {JSON}" for each load that begins and that ends, with the generator's result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

MARK = "omnikit-load: "
BETWEEN = "---"
FILE = "result.json"


def split(words: list[str]) -> list[list[str]]:
    """The arguments of each load.

    >>> split(["--seed=0", "---", "--seed=1"])
    [['--seed=0'], ['--seed=1']]
    """
    loads: list[list[str]] = [[]]
    for word in words:
        if word == BETWEEN:
            loads.append([])
        else:
            loads[-1].append(word)
    return loads


def tell(index: int, **what: Any) -> None:
    """One line for whoever started this; a bar may not have ended its line."""
    print(f"\n{MARK}{json.dumps({'load': index, **what})}", flush=True)


def one(words: list[str]) -> dict[str, Any]:
    """Run one load and return what the generator saved."""
    from vllm.benchmarks.serve import add_cli_args, main

    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    with tempfile.TemporaryDirectory() as folder:
        kept = ["--save-result", f"--result-dir={folder}", f"--result-filename={FILE}"]
        main(parser.parse_args([*words, *kept]))
        result: dict[str, Any] = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    return result


def run(words: list[str]) -> int:
    """All loads in turn; after one without a single answer there is no sense in the next."""
    for index, load in enumerate(split(words)):
        tell(index, state="began")
        try:
            result = one(load)
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit):  # an option that it refuses: it has said which
                traceback.print_exc()
            tell(index, state="failed", error=f"{type(error).__name__}: {error}")
            return 1
        tell(index, state="ended", result=result)
        if not result.get("completed"):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
