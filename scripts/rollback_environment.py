#!/usr/bin/env python3
"""Bring an environment back to a deployment that ended well, by default the one before the last.

Runs on the control host. Every deployment that changed something and passed its checks is kept
(invoke releases): its settings and rendered files are deployed again, by the same steps and with
the same checks as a deployment. The passwords of hosts come from the present configuration.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Go back, or with --dry-run say what to."""
    from omnikit import deploy, releases

    config = load_config(options)
    if options.dry_run:
        release = releases.find(config.environment, options.to)
        print(releases.as_text([release]))
        return 0
    wanted = deploy.Options(keep=options.keep, yes=options.yes, as_json=options.json)
    return deploy.rollback(config, options.to, wanted)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "", example="python scripts/rollback_environment.py -e 2p1d --to 7"
    )
    add_config_options(made)
    made.add_argument("--to", type=int, metavar="NUMBER", help="a release of invoke releases")
    made.add_argument("--yes", action="store_true", help="replace what runs without asking")
    made.add_argument("--keep", action="store_true", help="after a failed start, stop nothing")
    made.add_argument("--dry-run", action="store_true", help="show the release, do nothing")
    made.add_argument(
        "--json", action="store_true", help="print what happens as JSON lines, the result last"
    )
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
