#!/usr/bin/env python3
"""Have the running proxy take its present configuration over, without losing a connection.

Runs on the control host. nginx looks at the new files first; one that it does not accept changes
nothing. May run again at any time: unchanged files are left alone. A change that nginx cannot take
over while it runs (another port, another program) is refused.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Reload and print what became of the proxy."""
    from omnikit.deploy import roll

    done = roll.reload_proxy(load_config(options, going=True))
    if options.json:
        print(json.dumps(done))
    else:
        print("\n".join(f"{name}: {what}" for name, what in done.items()))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, json="print what became of it as JSON")


main = Script(__doc__, body, arguments, example="python scripts/reload_proxy.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
