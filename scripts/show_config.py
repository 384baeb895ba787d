#!/usr/bin/env python3
"""Show the merged settings of an environment and where each came from, or the schema of them all.

Runs on the control host. Changes nothing; --schema FILE writes that one file. A secret is a
reference; one that stands in server.env or server.args all the same is shown as [redacted].
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Print what was asked for."""
    if options.schema is not None:
        return _schema(options.schema)
    config = load_config(options)

    from omnikit import config_report

    found = config_report.leaves(config, changed=options.changed)
    if options.json:
        text = config_report.as_json(found, origins=options.origin)
    elif options.origin:
        text = config_report.with_origins(found)
    else:
        text = config_report.as_yaml(config_report.nested(found))
    sys.stdout.write(text)
    return 0


def _schema(target: str) -> int:
    import json
    from pathlib import Path

    from omnikit import json_schema
    from omnikit.errors import InputError

    text = json.dumps(json_schema.input_schema(), indent=1, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "", example="python scripts/show_config.py --environment 2p1d --origin --changed"
    )
    add_config_options(made)
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
    made.add_argument("--json", action="store_true", help="print the settings as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
