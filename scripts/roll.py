#!/usr/bin/env python3
"""Restart prefill and decode instances one after the other, without a failed request at the proxy.

Runs on the control host. Each is left out of the proxy, waited for until it has no work, restarted
(with its new settings, where they changed), waited for until it is ready, and taken in again; the
proxy takes its own new settings over while it runs. One of an old version is never paired with one
of a new. The only instance of a role interrupts the service: that is refused without --interrupt.
It stops at the first that does not come back, which stays out of the proxy; run again it goes on,
and invoke rollback turns back. --role proxy: a new process takes the proxy's port over (a renewed
program), and the one before ends after its requests.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Roll, or with --dry-run say what would be done."""
    from omnikit.deploy import roll
    from omnikit.deploy.acts import Options

    config = load_config(options, going=True)
    roles = [options.role] if options.role else [*roll.ROLES, roll.PROXY]
    if options.dry_run:
        print("\n".join(roll.dry_run(config, options.instance, roles, options.interrupt)))
        return 0
    told = Options(as_json=options.json)
    return roll.roll(config, options.instance, told, roles, options.interrupt)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--role",
        choices=("prefill", "decode", "proxy"),
        help="only this role (default: prefill and decode, and the proxy where it must restart)",
    )
    add(made, "instance")
    made.add_argument(
        "--interrupt",
        action="store_true",
        help="also what serves alone, though requests fail meanwhile",
    )
    add(made, "dry-run", json="print what happens as JSON lines, the result last")


main = Script(__doc__, body, arguments, example="python scripts/roll.py -e 2p1d --role prefill")


if __name__ == "__main__":
    sys.exit(main())
