#!/usr/bin/env python3
"""Send real requests through an environment's entry and check the answers.

Runs on the control host, changes nothing: the model list, a completion, whether its prompt's KV
was handed over from prefill to decode, a chat completion and a streamed completion.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Test and print."""
    from omnikit import smoke_test
    from omnikit.log import table
    from omnikit.topology import make_plan

    config = load_config(options)
    checks = smoke_test.run(make_plan(config), config.settings)
    if options.json:
        print(json.dumps([check.as_dict() for check in checks], indent=1))
    else:
        rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
        print(table(rows, ["", "check", "found"]))
    return 0 if all(check.passed for check in checks) else 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/smoke_test.py --environment local")
    add_config_options(made)
    made.add_argument("--json", action="store_true", help="print the checks as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
