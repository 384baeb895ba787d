#!/usr/bin/env python3
"""Bring an environment back to a deployment that ended well, by default the one before the last.

Runs on the control host. Every deployment that changed something and passed its checks is kept
(invoke releases): its settings and rendered files are deployed again, by the same steps and with
the same checks as a deployment, one by one where that interrupts nobody. Where what runs was never
proved (a roll that stopped), the default is the last. Passwords are those of the configuration now.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Go back, or with --dry-run say what to."""
    from omnikit.deploy import deploy
    from omnikit.deploy.acts import Options
    from omnikit.runs import releases, run

    config = load_config(options, going=True)
    if options.dry_run:
        unproved = run.is_unproved(config.environment)
        print(releases.as_text([deploy.target(config, options.to, unproved)]))
        return 0
    wanted = Options(
        keep=options.keep, yes=options.yes, as_json=options.json, at_once=options.at_once
    )
    return deploy.rollback(config, options.to, wanted)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--to", type=int, metavar="NUMBER", help="a release of invoke releases")
    add(made, yes="replace what runs without asking")
    made.add_argument("--keep", action="store_true", help="after a failed start, stop nothing")
    add(
        made,
        "at-once",
        dry_run="show the release, do nothing",
        json="print what happens as JSON lines, the result last",
    )


main = Script(__doc__, body, arguments, example="python scripts/rollback.py -e 2p1d --to 7")


if __name__ == "__main__":
    sys.exit(main())
