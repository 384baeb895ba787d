#!/usr/bin/env python3
"""Break the locks that a deployment left on the hosts of an environment, and say whose they were.

Runs on the control host. A lock names who changes a host and since when; its owner's next command
takes it over by itself. Break it only when the command that holds it is no more: look first, with
--dry-run. Each host's audit file gets a line.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Ask every host, print a line for each."""
    from hostkit.base import lock as base_lock
    from omnikit.fleet import identity, jobs
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    parameters = {
        host.name: {"work_dir": host.work_dir, "owner": identity.am_i(), "dry_run": options.dry_run}
        for host in plan.hosts
    }
    what = f"unlock of {config.environment}"
    audited = nullcontext() if options.dry_run else identity.audited(config.environment, what)
    with audited:
        found = jobs.results(jobs.run(plan, config.settings, "unlock", parameters))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for host, result in found.items():
        lock = result["lock"]
        said = "no lock" if lock is None else "broken: " if result["changed"] else "held by "
        if lock is not None:
            said += f"{lock['owner']}, {lock['what']}, since {base_lock.age(lock)}"
        print(f"{host}: {said}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "json", dry_run="show the locks, break none")


main = Script(__doc__, body, arguments, example="python scripts/unlock.py -e 2p1d --dry-run")


if __name__ == "__main__":
    sys.exit(main())
