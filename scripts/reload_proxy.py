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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Reload and print what became of the proxy."""
    from omnikit import roll

    done = roll.reload_proxy(load_config(options))
    if options.json:
        print(json.dumps(done))
    else:
        print("\n".join(f"{name}: {what}" for name, what in done.items()))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/reload_proxy.py -e 2p1d")
    add_config_options(made)
    made.add_argument("--json", action="store_true", help="print what became of it as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
