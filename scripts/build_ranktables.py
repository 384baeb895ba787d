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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Gather, build, keep."""
    from omnikit import ranktables
    from omnikit.log import say
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    if not ranktables.needed(config, plan):
        say("this environment's servers read no rank tables: nothing to do")
        return 0
    if options.dry_run:
        gathered = ranktables.gather(config)
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/build_ranktables.py -e 2p1d")
    add_config_options(made)
    made.add_argument("--dry-run", action="store_true", help="print the tables, keep nothing")
    made.add_argument("--json", action="store_true", help="print what became of each file as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
