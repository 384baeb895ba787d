#!/usr/bin/env python3
"""Check that the plan, the rank table and what the hosts report now agree.

Runs on the control host, changes nothing there or on the hosts. Names every device whose address
changed, every card that is missing and every address that is not the planned one. Exit status 1
when anything disagrees.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Gather and compare."""
    from hostkit.base.errors import InputError
    from omnikit.prepare import ranktables
    from omnikit.topology.topology import make_plan
    from omnikit.yaml.strict_yaml import read_text

    config = load_config(options)
    plan = make_plan(config)
    if not ranktables.needed(config, plan):
        print("this environment's servers read no rank tables: nothing to check")
        return 0
    if options.table:
        source, text = str(options.table), read_text(options.table)
    else:
        tables = ranktables.remembered(plan.environment)
        if not tables:
            raise InputError(
                "there is no rank table of this environment yet.",
                todo="invoke build-ranktables, or name one: --table global_ranktable_merge.json",
            )
        source, text = "the kept rank table", ranktables.cluster_text(tables)
    config.refuse_examples()  # the table was read here
    problems = ranktables.disagreements(plan, text, source, ranktables.gather(config, plan))
    if options.json:
        print(json.dumps({"agree": not problems, "problems": problems}, indent=1))
    else:
        print("\n".join(problems) or "plan, rank table and hosts agree")
    return 1 if problems else 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--table", type=Path, metavar="FILE", help="this cluster table instead of the kept one"
    )
    add(made, "json")


main = Script(__doc__, body, arguments, example="python scripts/check_ranktable.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
