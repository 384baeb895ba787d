#!/usr/bin/env python3
"""Let a prefill or decode instance join a running environment, without a failed request.

Runs on the control host. Checks the new host, writes it and its instance into the environment's
file (comments stay; --dry-run shows the difference), starts the instance, proves it with real
requests, and has the proxy take it in. A second run changes nothing; one that was cut off is
finished by the next, or by a deploy. Where others must restart, it says which, and asks.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Add, or with --dry-run show what would be done."""
    from omnikit.config.change import Place
    from omnikit.deploy import scale
    from omnikit.deploy.acts import Options

    place = Place(options.environment, options.config, options.set)
    wanted = (options.host, options.role, options.instance)
    if options.dry_run:
        return scale.would_join(place, *wanted)
    told = Options(yes=options.yes, as_json=options.json)
    return scale.add(place, *wanted, told, options.only_file)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(
        made,
        host="address, name or NAME=ADDRESS; H1,H2 for an instance over several hosts (repeatable:"
        " an instance for each)",
    )
    made.add_argument(
        "--role", choices=("prefill", "decode", "colocated"), help="what the instance is to be"
    )
    made.add_argument(
        "--instance",
        metavar="NAME",
        help="name of the instance; alone: one that was taken out comes back",
    )
    made.add_argument(
        "--only-file", action="store_true", help="write the file, check and start nothing"
    )
    add(made, "yes", dry_run="show the changed file and what would be done, do nothing")
    add(made, json="print what happens as JSON lines, the result last")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/add_host.py -e site.local --host 192.168.1.20 --role prefill",
)


if __name__ == "__main__":
    sys.exit(main())
