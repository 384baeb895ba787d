#!/usr/bin/env python3
"""Print the logs of an environment's servers, or follow them.

Runs on the control host, changes nothing. With several servers each line begins with the name of
its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Show or follow."""
    from omnikit import logs

    return logs.show(load_config(options), options.instance or [], options.lines, options.follow)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/show_logs.py --instance p0 --follow")
    add_config_options(made)
    made.add_argument(
        "--instance", action="append", metavar="NAME", help="only this one (may be repeated)"
    )
    made.add_argument("--lines", type=int, default=50, help="last lines of each (default 50)")
    made.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
