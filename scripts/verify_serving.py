#!/usr/bin/env python3
"""Verify that all servers serve the same, and that every pair of prefill and decode answers right.

Runs on the control host, changes nothing: greedy requests to each pair, to servers alone and
through the proxy are compared; the hosts tell hashes of their weights, tokenizers and templates,
and what their servers run with. Exit code 1: a wrong answer, or servers that differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Compare, ask, print."""
    from hostkit.base.errors import ActionError
    from hostkit.base.log import say, table
    from omnikit.deploy import alike, truth
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan, settings = make_plan(config), config.settings
    known = truth.read(Path(options.reference), plan, settings) if options.reference else None
    begun = time.monotonic()
    same = alike.checks(plan, settings)
    verdict = truth.run(plan, settings, short=options.short, reference=known)
    checks = same + verdict.checks
    wrong = [check for check in checks if not check.passed]
    causes = [f"{check.name}: {check.found}" for check in same if not check.passed]
    causes += verdict.causes
    took = round(time.monotonic() - begun, 1)
    if options.json:
        data = {
            "environment": plan.environment,
            "passed": not wrong,
            "causes": causes,
            "checks": [check.as_dict() for check in checks],
            "seconds": took,
        }
        print(json.dumps(data, indent=1))
    else:
        rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
        print(table(rows, ["", "what", "found"]))
    say(f"{len(checks)} comparisons in {took} s, {len(wrong)} failed")
    if wrong:
        raise ActionError(
            "this deployment does not serve as one server alone would.\n" + "\n".join(causes),
            todo="mend what differs, then restart these servers: invoke deploy",
        )
    if options.record:
        truth.record(Path(options.record), plan, settings, verdict.right)
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--short", action="store_true", help="two requests for each pair, as a deploy"
    )
    made.add_argument(
        "--reference", metavar="FILE", help="answers that are right, written by --record"
    )
    made.add_argument(
        "--record", metavar="FILE", help="write the answers to FILE when all is right"
    )
    add(made, json="print the comparisons as JSON")


main = Script(
    __doc__, body, arguments, example="python scripts/verify_serving.py --environment local"
)


if __name__ == "__main__":
    sys.exit(main())
