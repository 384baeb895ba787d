#!/usr/bin/env python3
"""Read the model's weights into the page cache of every host that serves them.

Runs on the control host; starts, stops and writes nothing. Servers that start afterwards read from
memory. What is in memory already is not read again, and what has no room is left: it says how much.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Have all hosts read side by side, and print a line for each."""
    from hostkit.base.log import say, size_text, table
    from omnikit.fleet import jobs
    from omnikit.images.pull import chosen
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    serve = [host.name for host in plan.hosts if any(n.servers for n in plan.on_host(host.name))]
    names = [name for name in chosen(plan, options.host) if name in serve]
    told = {"model": plan.model_path, "dry_run": options.dry_run}
    found = jobs.results(jobs.run(plan, config.settings, "warm", dict.fromkeys(names, told)))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0

    def amount(one: dict[str, Any], what: str) -> str:
        return "unknown" if one[what] is None else size_text(one[what])

    rows = [
        [
            *(host, size_text(one["bytes"]), amount(one, "before"), amount(one, "after")),
            *(f"{one['seconds']:g} s", size_text(one["left"]) if one["left"] else ""),
        ]
        for host, one in found.items()
    ]
    print(table(rows, ["host", "weights", "in memory before", "now", "took", "no room for"]))
    if options.dry_run:
        say("nothing was read: --dry-run")
    elif not any(one["changed"] for one in found.values()):
        say("nothing to read: all that has room is in memory")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host", "json", dry_run="show what is in memory, read nothing")


main = Script(__doc__, body, arguments, example="python scripts/warm.py -e local --dry-run")


if __name__ == "__main__":
    sys.exit(main())
