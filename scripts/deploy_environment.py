#!/usr/bin/env python3
"""Bring an environment to what its configuration says, and prove that it serves.

Runs on the control host. Sets up what a local environment needs (engine, model, proxy), starts or
restarts only what differs, waits until every server is ready, and ends with real requests. When a
start fails, what this run started is stopped again (unless --keep) and the cause is shown.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Deploy, or with --dry-run show what would be done."""
    from omnikit import deploy

    config = load_config(options)
    if options.dry_run:
        from omnikit import plan_report

        return plan_report.show(config, as_json=False, commands=False)
    return deploy.deploy(config, keep=options.keep, as_json=options.json)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "", example="python scripts/deploy_environment.py --environment local"
    )
    add_config_options(made)
    made.add_argument("--dry-run", action="store_true", help="show what would be done, do nothing")
    made.add_argument("--keep", action="store_true", help="after a failed start, stop nothing")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
