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

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Observe and print."""
    from omnikit.deploy import status

    config = load_config(options, going=True)
    if options.watch:
        import watch

        return watch.view(config)
    found = status.collect(config)
    print(json.dumps(found, indent=1) if options.json else status.as_text(found))
    return 0 if found["ok"] else 1


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--watch", action="store_true", help="what invoke watch shows, until q")
    add(made, json="print everything as JSON")


main = Script(__doc__, body, arguments, example="python scripts/status.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
