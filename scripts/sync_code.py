#!/usr/bin/env python3
"""Make the source on the hosts equal to the one here; only what differs is sent.

Runs on the control host; all hosts at the same time: paths.code_dir of each becomes what
paths.local_code_dir is here. First vLLM in the source gets omni-infer's patches: the hosts lack its
.git. Files that the source has not are removed; what sync.exclude names is neither sent nor
removed. May run again at any time: what a cut left is used. A folder that is not empty and no copy
of ours is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Compare, send, verify, and print a line for each host."""
    from contextlib import ExitStack

    from hostkit.base import records
    from hostkit.base.errors import ActionError, InputError
    from hostkit.base.log import say
    from hostkit.copy.tree import shown
    from omnikit.config.layers import control_folder
    from omnikit.fleet import jobs
    from omnikit.images.pull import chosen
    from omnikit.runs import run
    from omnikit.source import sync
    from omnikit.topology.topology import make_plan

    config = load_config(options, going=True)
    plan = make_plan(config)
    hosts = chosen(plan, options.host)
    request = sync.Request(dry_run=options.dry_run, verify=options.verify, replace=options.replace)
    sync.destination(config, plan)
    what = f"sync of the source for {config.environment}"
    with ExitStack() as held:
        if options.dry_run:
            held.enter_context(records.locked(control_folder(config.environment) / "lock", what))
        else:
            held.enter_context(run.changing(config, what))
            of_plan = [host for host in plan.hosts if host.name in hosts]
            held.enter_context(run.hold(config, what, hosts=of_plan))
        patched = sync.patch(config, options.dry_run)
        if patched:
            say(patched)
        made = sync.source(config, options.verify)
        say(made.line())
        for warning in made.warnings:
            say(f"note: {warning}")
        done = sync.sync(config, plan, hosts, made, request)
        results = {host: one.result for host, one in done.items() if one.result is not None}
        if options.json:
            print(json.dumps(report(done), indent=1))
        else:
            for host, result in results.items():
                print(f"{host}: {sync.line(result)}")
                for path in result["files"] if options.dry_run else ():
                    print(f"  {shown(path)}")
        try:
            jobs.results(done)
        except InputError as error:
            if any(result["changed"] for result in results.values()):
                raise ActionError(error.what, where=error.where, todo=error.todo) from error
            raise
    return 0


def report(done: dict[str, Any]) -> dict[str, Any]:
    """What became of each host, for programs."""
    return {
        host: one.result if one.error is None else {"changed": False, "error": str(one.error)}
        for host, one in done.items()
    }


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host")
    made.add_argument("--verify", action="store_true", help="read all files again, on both ends")
    add(
        made,
        "json",
        replace="also a folder that is no copy of ours; what is in it besides is removed",
        dry_run="show what would change",
    )


main = Script(__doc__, body, arguments, example="python scripts/sync_code.py --environment 2p1d")


if __name__ == "__main__":
    sys.exit(main())
