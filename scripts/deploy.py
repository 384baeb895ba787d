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
from typing import Optional

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Deploy, or with --dry-run show what would be done."""
    from omnikit.deploy import deploy
    from omnikit.deploy.acts import Options
    from omnikit.prepare import source_steps

    steps = source_steps.choose(options.tags, options.skip_tags)
    config = load_config(options, going=True)
    if options.dry_run:
        from omnikit.deploy import plan_report

        at_once = options.at_once
        return plan_report.show(config, as_json=False, asked=True, steps=steps, at_once=at_once)
    wanted = Options(
        *(steps, source_steps.named(options.tags), options.keep, options.yes, options.json),
        at_once=options.at_once,
    )
    return deploy.deploy(config, wanted)


def arguments(made: argparse.ArgumentParser, environment: str = "") -> None:
    """Add what the command line takes; environment is what is deployed where none is chosen."""
    _not_of_steps(made, environment)
    made.add_argument("--tags", default="", metavar="STEP,…", help="only these steps")
    made.add_argument("--skip-tags", default="", metavar="STEP,…", help="all but these steps")


def _not_of_steps(made: argparse.ArgumentParser, environment: str = "") -> None:
    add_config(made, environment)
    add(made, "dry-run", yes="replace what runs without asking")
    made.add_argument("--keep", action="store_true", help="after a failed start, stop nothing")
    add(made, "at-once", json="print what happens as JSON lines, the result last")


def step(doc: Optional[str], name: str) -> Script:
    """The script of one step alone: it takes all options but those that choose steps."""

    def only(options: argparse.Namespace) -> int:
        return body(argparse.Namespace(**vars(options), tags=name, skip_tags=""))

    return Script(doc, only, _not_of_steps, example=f"python scripts/{name}.py -e 2p1d")


main = Script(__doc__, body, arguments, example="python scripts/deploy.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
