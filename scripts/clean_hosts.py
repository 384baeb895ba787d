#!/usr/bin/env python3
"""Remove from the hosts of an environment what its deployments left: servers, containers, files.

Runs on the control host. Servers are stopped first, their containers removed, then what a
deployment wrote below paths.work_dir. Logs stay unless --logs; images, models and source stay.
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
    """Ask, then clean every host and print a line for each."""
    from omnikit import ask, host_records, jobs, who
    from omnikit.deployment import control_folder
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    given = {"logs": options.logs, "dry_run": options.dry_run}
    parameters = {host.name: {**given, "work_dir": host.work_dir} for host in plan.hosts}
    if not options.dry_run:
        hosts = ", ".join(parameters)
        ask.confirm(f"{config.environment} would be stopped and removed on {hosts}.", options.yes)
    lock, what = control_folder(config.environment) / "lock", f"clean-up of {config.environment}"
    audited = nullcontext() if options.dry_run else who.audited(config.environment, what)
    with host_records.locked(lock, what), audited:
        found = jobs.results(jobs.run(plan, config.settings, "clean", parameters))
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for host, result in found.items():
        done = [f"{name} {what}" for name, what in result["stopped"].items()]
        would = "would be removed" if options.dry_run else "removed"
        done += [f"{path} {would}" for path in result["removed"]]
        print(f"{host}: {', '.join(done) or 'nothing to remove'}")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/clean_hosts.py -e 2p1d --dry-run")
    add_config_options(made)
    made.add_argument("--logs", action="store_true", help="remove the logs as well")
    made.add_argument("--yes", action="store_true", help="do not ask first")
    made.add_argument("--dry-run", action="store_true", help="show what would be removed")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
