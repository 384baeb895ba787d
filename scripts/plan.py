#!/usr/bin/env python3
"""Show what a deploy would do before it does it: instances, hosts, devices, ports, ranks, files.

Runs on the control host, changes nothing. For this machine it also says what differs from what
runs now; other hosts are compared with what was last sent to them, or asked with --live.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Plan and print."""
    from omnikit.deploy import plan_report

    return plan_report.show(
        load_config(options, going=options.live),
        as_json=options.json,
        commands=options.commands,
        contents=options.files,
        asked=options.live,
    )


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--commands", action="store_true", help="print every command in full")
    made.add_argument("--files", action="store_true", help="print every rendered file in full")
    made.add_argument("--live", action="store_true", help="ask every host now, over SSH too")
    add(made, json="print the plan as JSON")


main = Script(__doc__, body, arguments, example="python scripts/plan.py --environment 2p1d")


if __name__ == "__main__":
    sys.exit(main())
