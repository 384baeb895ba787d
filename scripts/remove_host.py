#!/usr/bin/env python3
"""Take a host or an instance out of a running environment, without a failed request.

Runs on the control host. Its instances are marked as out in the environment's file (comments stay;
--dry-run shows the difference), so that all others keep their names, ports and ranks. They leave
the proxy, end what they have, and are ended; from a host that has nothing else a deployment's files
go, but for the logs. The last instance of a role is refused. invoke add-host brings it back.
"""

from __future__ import annotations

import argparse
import sys

from omnikit.front.options import add, add_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Remove, or with --dry-run show what would be done."""
    from omnikit.config.change import Place
    from omnikit.deploy import scale
    from omnikit.deploy.acts import Options

    place = Place(options.environment, options.config, options.set)
    if options.dry_run:
        return scale.would_leave(place, options.host, options.instance)
    told = Options(yes=options.yes, as_json=options.json)
    return scale.remove(place, options.host, options.instance, told, options.now)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(
        made,
        host="name or address: all its instances leave (repeatable)",
        instance="this instance leaves, for example p1 (repeatable)",
    )
    made.add_argument(
        "--now", action="store_true", help="do not wait until its requests have ended"
    )
    add(made, "yes", dry_run="show the changed file and what would be done, do nothing")
    add(made, json="print what happens as JSON lines, the result last")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/remove_host.py -e site.local --instance p1",
)


if __name__ == "__main__":
    sys.exit(main())
