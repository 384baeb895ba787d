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
from typing import TYPE_CHECKING, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config

if TYPE_CHECKING:
    from omnikit.config import Config

_CLEAR = "\x1b[H\x1b[2J"  # of a terminal: cursor home, then clear


def body(options: argparse.Namespace) -> int:
    """Observe and print."""
    from omnikit import status

    config = load_config(options)
    if options.watch:
        return _watch(config)
    found = status.collect(config)
    print(json.dumps(found, indent=1) if options.json else status.as_text(found))
    return 0 if found["ok"] else 1


def _watch(config: Config) -> int:
    """Print the state again and again until Ctrl-C."""
    from omnikit import health, status

    terminal = sys.stdout.isatty()
    while True:
        shown = status.as_text(status.collect(config))
        at = time.strftime("%H:%M:%S")
        print(f"{_CLEAR if terminal else ''}{at}\n{shown}", flush=True)
        health.wait_until(
            lambda: False, config.settings.fleet.watch_s, config.settings.fleet.watch_s
        )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/show_status.py --environment local")
    add_config_options(made)
    made.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
