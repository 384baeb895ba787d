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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Gather and compare."""
    from omnikit import ranktables
    from omnikit.errors import InputError
    from omnikit.strict_yaml import read_text
    from omnikit.topology import make_plan

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
                todo="invoke gen-ranktable, or name one: --table global_ranktable_merge.json",
            )
        source, text = "the kept rank table", ranktables.cluster_text(tables)
    problems = ranktables.disagreements(plan, text, source, ranktables.gather(config))
    if options.json:
        print(json.dumps({"agree": not problems, "problems": problems}, indent=1))
    else:
        print("\n".join(problems) or "plan, rank table and hosts agree")
    return 1 if problems else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/check_ranktable.py -e 2p1d")
    add_config_options(made)
    made.add_argument(
        "--table", type=Path, metavar="FILE", help="this cluster table instead of the kept one"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
