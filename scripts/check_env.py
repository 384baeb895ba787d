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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Check and report."""
    from omnikit import check_record, check_report, environment_checks
    from omnikit.image_pull import chosen
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    found = environment_checks.run(config, plan, chosen(plan, options.host))
    check_record.keep(plan.environment, found.checks, found.facts)
    if options.json:
        print(json.dumps(check_report.data(plan.environment, found.checks, found.facts), indent=1))
    else:
        print(check_report.text(found.checks, everything=options.all))
    return 0 if check_report.passed(found.checks) else 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/check_env.py --environment 2p1d")
    add_config_options(made)
    made.add_argument(
        *("--host", "-H"),
        action="append",
        default=[],
        metavar="NAME",
        help="only this host of the environment (may be repeated)",
    )
    made.add_argument("--all", action="store_true", help="show in full what is ok, too")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
