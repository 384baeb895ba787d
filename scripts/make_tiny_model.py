#!/usr/bin/env python3
"""Make a tiny model to serve: a Qwen2 with seeded random weights and an offline tokenizer.

Runs on any host, needs no network. Writes about one megabyte below --out and nothing else; the same
seed gives the same bytes. A second run verifies the files' hashes and says "unchanged"; damaged
files are rewritten.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hostkit.base.log import say
from omnikit.front.options import add
from omnikit.front.script import PROJECT, Script, always_bare

# Where the environments of this machine look for it.
TINY = PROJECT / "build" / "models" / "tiny-qwen2"


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument(
        "--out", type=Path, default=TINY, help="folder of the model (default: %(default)s)"
    )
    made.add_argument("--seed", type=_seed, default=0, help="of the random weights (default 0)")
    made.add_argument("--force", action="store_true", help="rewrite, also in a foreign folder")
    add(made, "json", dry_run="say what would be done")


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 to {2**32 - 1}")
    return seed


def _body(options: argparse.Namespace) -> int:
    from omnikit.engine import tiny_model

    if options.dry_run:
        found = tiny_model.look(options.out, options.seed, force=options.force)
    else:
        found = tiny_model.make(options.out, options.seed, force=options.force)
    result = "rewritten" if options.force and found.state != "missing" else _RESULTS[found.state]
    for difference in found.differences:
        say(f"{options.out}: {difference}")
    if options.json:
        print(json.dumps({"path": str(options.out), "seed": options.seed, "result": result}))
    else:
        print(f"{options.out}: {'would be ' if options.dry_run else ''}{result}")
    return 0


_RESULTS = {
    "missing": "created",
    "different": "rewritten",
    "foreign": "rewritten",
    "unchanged": "unchanged",
}


main = Script(
    __doc__,
    _body,
    arguments,
    example="scripts/make_tiny_model.py --out build/models/tiny",
    bare=always_bare,
)


if __name__ == "__main__":
    sys.exit(main())
