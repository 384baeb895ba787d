#!/usr/bin/env python3
"""Show how every server of an environment is, and whether a completion comes through.

Runs on the control host, changes nothing. One row per API server and one for the proxy: role,
host, port, process, state, uptime, requests running and waiting, use of the KV cache. Exits 0 only
when all are ready and a completion was answered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config


def body(options: argparse.Namespace) -> int:
    """Observe and print."""
    from omnikit.deploy import status

    config = load_config(options, going=True)
    if options.watch:
        return _watch(config)
    found = status.collect(config)
    print(json.dumps(found, indent=1) if options.json else status.as_text(found))
    return 0 if found["ok"] else 1


def _watch(config: Config) -> int:
    """Print the state again and again until Ctrl-C."""
    from hostkit.base import health, log
    from omnikit.deploy import status

    while True:
        shown = status.as_text(status.collect(config))
        at = time.strftime("%H:%M:%S")
        log.clear_screen()
        print(f"{at}\n{shown}", flush=True)
        health.wait_until(
            lambda: False, config.settings.fleet.watch_s, config.settings.fleet.watch_s
        )


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    add(made, json="print everything as JSON")


main = Script(__doc__, body, arguments, example="python scripts/status.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
