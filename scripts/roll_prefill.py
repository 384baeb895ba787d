#!/usr/bin/env python3
"""Restart the prefill instances one after the other, without a failed request at the proxy.

Runs on the control host. Each is left out of the proxy, waited for until it has no work, restarted
(with its new settings, where they changed), waited for until it is ready, and taken in again. One
that does not come back stays out, and the next ones are left alone; `invoke deploy` mends that.
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
    if options.dry_run:
        print("\n".join(roll.dry_run(config, options.instance)))
        return 0
    return roll.roll(config, options.instance, Options(as_json=options.json))


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "instance", "dry-run", json="print what happens as JSON lines, the result last")


main = Script(
    __doc__, body, arguments, example="python scripts/roll_prefill.py -e 2p1d --instance p0"
)


if __name__ == "__main__":
    sys.exit(main())
