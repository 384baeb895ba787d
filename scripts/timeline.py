#!/usr/bin/env python3
"""Show where the time of a deployment went: steps, hosts, critical path, waiting for engines.

Runs on the control host and reads what a deploy, rollback or roll wrote there; asks no host and
changes nothing. Shows the newest record, or one of --list. Each has a trace for Perfetto as well.
"""

from __future__ import annotations

import argparse
import json
import sys

from hostkit.base import cli
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Read and print."""
    from hostkit.files import regular
    from omnikit.timeline import records, summary

    trace = None if options.trace is None else regular.to_write(options.trace, "--trace")
    environment = load_config(options).environment
    if options.list:
        known, damaged = records.all_of(environment)
        for problem in damaged:
            print(f"left out: {problem}", file=sys.stderr)
        if options.json:
            print(json.dumps([summary.as_data(one) for one in known], indent=1))
        else:
            print(summary.listing(known) if known else "nothing was deployed yet")
        return 0
    record = records.find(environment, options.record)
    if trace:
        records.write_to(record, trace)
    if options.json:
        print(json.dumps(summary.as_data(record), indent=1))
    else:
        print(summary.as_text(record, environment, options.top))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--record", metavar="NAME", help="this one of --list, or a .jsonl file")
    made.add_argument("--list", action="store_true", help="show which records there are")
    made.add_argument(
        "--top",
        type=cli.positive,
        default=10,
        metavar="N",
        help="steps and hosts shown (default 10)",
    )
    made.add_argument("--trace", metavar="FILE", help="write its trace for Perfetto")
    add(made, json="print everything as JSON")


main = Script(__doc__, body, arguments, example="python scripts/timeline.py -e 2p1d --top 5")


if __name__ == "__main__":
    sys.exit(main())
