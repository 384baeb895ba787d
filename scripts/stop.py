#!/usr/bin/env python3
"""End exactly what a deployment of this environment started, by its records, and nothing else.

Runs on the control host. A deployment that is still under way is cancelled first. Records that a
reboot left behind are forgotten. Logs stay. A second run finds nothing and says so.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Stop and report."""
    from omnikit.deploy import stop

    config = load_config(options, going=True)
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


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "instance", "json", dry_run="show what would be stopped")


main = Script(__doc__, body, arguments, example="python scripts/stop.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
