#!/usr/bin/env python3
"""End exactly what a deployment of this environment started, by its records, and nothing else.

Runs on the control host. A deployment that is still under way is cancelled first. Records that a
reboot left behind are forgotten. Logs stay. A second run finds nothing and says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Stop and report."""
    from omnikit import stop

    config = load_config(options)
    only = set(options.instance or [])
    done = (stop.would_stop if options.dry_run else stop.stop)(config, only)
    if options.json:
        print(json.dumps(done, indent=1))
    elif not done:
        print("nothing runs: nothing to stop")
    else:
        for name, what in done.items():
            print(f"{name}: {'would be ' if options.dry_run else ''}{what}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "", example="python scripts/stop_environment.py --environment local"
    )
    add_config_options(made)
    made.add_argument(
        "--instance", action="append", metavar="NAME", help="only this one (may be repeated)"
    )
    made.add_argument("--dry-run", action="store_true", help="show what would be stopped")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
