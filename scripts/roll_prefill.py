#!/usr/bin/env python3
"""Restart the prefill instances one after the other, without a failed request at the proxy.

Runs on the control host. Each is left out of the proxy, waited for until it has no work, restarted
(with its new settings, where they changed), waited for until it is ready, and taken in again. One
that does not come back stays out, and the next ones are left alone; `invoke deploy` mends that.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Roll, or with --dry-run say what would be done."""
    from omnikit import roll
    from omnikit.deploy import Options

    config = load_config(options)
    if options.dry_run:
        print("\n".join(roll.dry_run(config, options.instance)))
        return 0
    return roll.roll(config, options.instance, Options(as_json=options.json))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/roll_prefill.py -e 2p1d --instance p0")
    add_config_options(made)
    made.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, for example p0 (may be repeated)",
    )
    made.add_argument("--dry-run", action="store_true", help="show what would be done, do nothing")
    made.add_argument(
        "--json", action="store_true", help="print what happens as JSON lines, the result last"
    )
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
