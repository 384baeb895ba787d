#!/usr/bin/env python3
"""Build all rank tables of an environment in one pass, from what its hosts report now.

Runs on the control host. Asks every host for its device addresses, validates against the plan, and
keeps the tables below build/control/<environment>/ranktables; a deploy ships them. A second run
says unchanged.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Gather, build, keep."""
    from hostkit.base.log import say
    from omnikit.prepare import ranktables
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    if not ranktables.needed(config, plan):
        say("this environment's servers read no rank tables: nothing to do")
        return 0
    if options.dry_run:
        gathered = ranktables.gather(config, plan)
        for host, files in ranktables.build(plan, gathered).items():
            for name, text in files.items():
                print(f"--- {host}: {name}\n{text}", end="")
        return 0
    _, done = ranktables.ensure(config, plan)
    if options.json:
        print(json.dumps(done, indent=1))
    else:
        for name, what in done.items():
            print(f"{name}: {what}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(
        made,
        dry_run="print the tables, keep nothing",
        json="print what became of each file as JSON",
    )


main = Script(__doc__, body, arguments, example="python scripts/build_ranktables.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
