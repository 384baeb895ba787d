#!/usr/bin/env python3
"""Check whether the hosts of an environment are fit to serve, before anything is started.

Runs on the control host and looks at all hosts of the environment side by side: what each has, and
what must be equal between them. Changes no setting of a host; it ships its own code below the work
directory, and measures disks with files that it removes. Exit code 1: a required check failed.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Check and report."""
    from omnikit.checks import environment, report
    from omnikit.images.pull import chosen
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    found = environment.run(config, plan, chosen(plan, options.host))
    report.keep(plan.environment, found.checks, found.facts)
    if options.json:
        print(json.dumps(report.data(plan.environment, found.checks, found.facts), indent=1))
    else:
        print(report.text(found.checks, everything=options.all))
    return 0 if report.passed(found.checks) else 1


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host")
    made.add_argument("--all", action="store_true", help="show in full what is ok, too")
    add(made, "json")


main = Script(__doc__, body, arguments, example="python scripts/check_env.py --environment 2p1d")


if __name__ == "__main__":
    sys.exit(main())
