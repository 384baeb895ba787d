#!/usr/bin/env python3
"""Print the logs of an environment's servers, or follow them.

Runs on the control host, changes nothing. With several servers each line begins with the name of
its own.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Show or follow."""
    from omnikit.logs import logs

    return logs.show(
        load_config(options, going=True), options.instance or [], options.lines, options.follow
    )


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "instance")
    made.add_argument("--lines", type=int, default=50, help="last lines of each (default 50)")
    made.add_argument("--follow", action="store_true", help="go on until Ctrl-C")


main = Script(__doc__, body, arguments, example="python scripts/logs.py --instance p0 --follow")


if __name__ == "__main__":
    sys.exit(main())
