#!/usr/bin/env python3
"""Show what happened to an environment, on all hosts: starts, deaths, restarts, stops, commands.

Runs on the control host, changes nothing. Every host writes down each change of its instances'
states, and who deployed, rolled back or stopped there; here it stands in order of time, by the
hosts' clocks. Exits 1 when a host could not be asked; what the others say is shown then.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config, seconds, since
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Ask and print."""
    from omnikit.logs import history

    given = options.since
    found = history.collect(
        load_config(options, going=True),
        options.host,
        options.instance,
        seconds(given) if given else None,
    )
    print(json.dumps(found.data, indent=1) if options.json else found.text)
    return 1 if found.silent else 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host", "instance")
    made.add_argument(
        "--since", type=since, metavar="TIME", help="only of the last 30m, 8h, 1d (hosts' clocks)"
    )
    add(made, json="print all events as JSON, with times in UTC")


main = Script(__doc__, body, arguments, example="python scripts/history.py -e 2p1d --since 8h")


if __name__ == "__main__":
    sys.exit(main())
