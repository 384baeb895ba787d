#!/usr/bin/env python3
"""Send real requests through an environment's entry and check the answers.

Runs on the control host, changes nothing: the model list, a completion, whether its prompt's KV
was handed over from prefill to decode, a chat completion, a streamed completion, and two prompts in
one request (not with omni-infer's own nginx and vllm-router, which answer those wrongly).
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Test and print."""
    from hostkit.base.log import table
    from omnikit.deploy import smoke_test
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    checks = smoke_test.run(make_plan(config), config.settings)
    if options.json:
        print(json.dumps([check.as_dict() for check in checks], indent=1))
    else:
        rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
        print(table(rows, ["", "check", "found"]))
    return 0 if all(check.passed for check in checks) else 1


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, json="print the checks as JSON")


main = Script(__doc__, body, arguments, example="python scripts/smoke_test.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
