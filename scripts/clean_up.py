#!/usr/bin/env python3
"""Remove from the hosts of an environment what its deployments left: servers, containers, files.

Runs on the control host. Servers are stopped first, their containers removed, then what a
deployment wrote below paths.work_dir. Logs stay unless --logs; images, models and source stay.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Ask, then clean every host and print a line for each."""
    from hostkit.base import cli
    from omnikit.fleet import jobs
    from omnikit.runs import run
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    given = {"logs": options.logs, "dry_run": options.dry_run}
    parameters = {host.name: {**given, "work_dir": host.work_dir} for host in plan.hosts}
    if not options.dry_run:
        hosts = ", ".join(parameters)
        cli.confirm(f"{config.environment} would be stopped and removed on {hosts}.", options.yes)
    what = f"clean-up of {config.environment}"
    if options.dry_run:
        found = jobs.results(jobs.run(plan, config.settings, "clean", parameters))
    else:
        with run.changing(config, what):
            seen, away = run.ask(plan.hosts, config.settings)
            asked = [host for host in plan.hosts if host.name not in away]
            there = [host for host in asked if seen[host.name]["ours"]]
            with run.hold(config, what, seen, there, frees=True) as held:
                for name, one in parameters.items():
                    one["run"] = held.id if name in held.results else ""
                    one["wait_s"] = 4 * config.settings.stop.grace_s
                found = jobs.results(jobs.run(plan, config.settings, "clean", parameters))
            run.nothing_unproved(config.environment)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for host, result in found.items():
        done = [f"{name} {what}" for name, what in result["stopped"].items()]
        would = "would be removed" if options.dry_run else "removed"
        done += [f"{path} {would}" for path in result["removed"]]
        print(f"{host}: {', '.join(done) or 'nothing to remove'}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--logs", action="store_true", help="remove the logs as well")
    add(made, "json", yes="do not ask first", dry_run="show what would be removed")


main = Script(__doc__, body, arguments, example="python scripts/clean_up.py -e 2p1d --dry-run")


if __name__ == "__main__":
    sys.exit(main())
