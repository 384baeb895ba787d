#!/usr/bin/env python3
"""Show the deployments of an environment that ended well: when, by whom, image, source, changes.

Runs on the control host, changes nothing. The newest comes first; it is the present one.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Print the table, or everything as JSON."""
    from omnikit.runs import releases

    environment = load_config(options).environment
    known = releases.all_of(environment)
    for problem in releases.damaged(environment):
        print(f"left out: {problem}", file=sys.stderr)
    if options.json:
        print(json.dumps([{"number": r.number, **r.about} for r in known], indent=1))
    else:
        print(releases.as_text(known) if known else "nothing was deployed yet")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, json="print everything as JSON")


main = Script(__doc__, body, arguments, example="python scripts/releases.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
