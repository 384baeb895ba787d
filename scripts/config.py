#!/usr/bin/env python3
"""Show the merged settings of an environment and where each came from, or the schema of them all.

Runs on the control host. Changes nothing; --schema FILE writes that one file. A secret is a
reference; one that stands in server.env or server.args all the same is shown as [redacted].
"""

from __future__ import annotations

import argparse
import sys

from hostkit.base.log import give
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Print what was asked for."""
    if options.schema is not None:
        return _schema(options.schema)
    config = load_config(options)

    from omnikit.config import report

    found = report.leaves(config, changed=options.changed)
    if options.json:
        text = report.as_json(found, origins=options.origin)
    elif options.origin:
        text = report.with_origins(found)
    else:
        text = report.as_yaml(report.nested(found))
    give(text, end="")
    return 0


def _schema(target: str) -> int:
    import json
    from pathlib import Path

    from hostkit.base.errors import InputError
    from omnikit.config import report as config_report

    text = json.dumps(config_report.input_schema(), indent=1, ensure_ascii=False) + "\n"
    if target == "-":
        give(text, end="")
        return 0
    path = Path(target)
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(
            f"cannot write the schema: {error.strerror}.", where=target, todo="choose another file"
        ) from error
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--origin", action="store_true", help="show where each value came from")
    made.add_argument(
        "--changed", action="store_true", help="only what differs from configs/defaults.yaml"
    )
    made.add_argument(
        "--schema",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the JSON Schema of settings files instead (to standard output without FILE)",
    )
    add(made, json="print the settings as JSON")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/config.py --environment 2p1d --origin --changed",
)


if __name__ == "__main__":
    sys.exit(main())
