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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Ask every host, print a line for each."""
    from omnikit import host_lock, jobs, who
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    parameters = {
        host.name: {"work_dir": host.work_dir, "owner": who.am_i(), "dry_run": options.dry_run}
        for host in plan.hosts
    }
    what = f"unlock of {config.environment}"
    audited = nullcontext() if options.dry_run else who.audited(config.environment, what)
    with audited:
        found = jobs.results(jobs.run(plan, config.settings, "unlock", parameters))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for host, result in found.items():
        lock = result["lock"]
        said = "no lock" if lock is None else "broken: " if result["changed"] else "held by "
        if lock is not None:
            said += f"{lock['owner']}, {lock['what']}, since {host_lock.age(lock)}"
        print(f"{host}: {said}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/unlock_hosts.py -e 2p1d --dry-run")
    add_config_options(made)
    made.add_argument("--dry-run", action="store_true", help="show the locks, break none")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
