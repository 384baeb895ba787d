#!/usr/bin/env python3
"""Bring an environment to what its configuration says, and prove that it serves.

Runs on the control host. Sets up what a local environment needs (engine, model, proxy), starts or
restarts only what differs, waits until every server is ready, and ends with real requests. When a
start fails, what this run started is stopped again, what it ended is started again (unless --keep),
and the cause is shown. Steps: run_docker, sync_code, pip_install, ranktable, run_server, run_proxy.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Deploy, or with --dry-run show what would be done."""
    from omnikit.deploy import deploy
    from omnikit.prepare import source_steps

    steps = source_steps.choose(options.tags, options.skip_tags)
    config = load_config(options)
    if options.dry_run:
        from omnikit.deploy import plan_report

        return plan_report.show(config, as_json=False, asked=True, steps=steps)
    wanted = deploy.Options(
        steps, source_steps.named(options.tags), options.keep, options.yes, options.json
    )
    return deploy.deploy(config, wanted)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "dry-run")
    made.add_argument("--tags", default="", metavar="STEP,…", help="only these steps")
    made.add_argument("--skip-tags", default="", metavar="STEP,…", help="all but these steps")
    add(made, yes="replace what runs without asking")
    made.add_argument("--keep", action="store_true", help="after a failed start, stop nothing")
    add(made, json="print what happens as JSON lines, the result last")


main = Script(
    __doc__, body, arguments, example="python scripts/deploy_environment.py --environment local"
)


if __name__ == "__main__":
    sys.exit(main())
