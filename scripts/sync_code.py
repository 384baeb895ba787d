#!/usr/bin/env python3
"""Make paths.code_dir on the hosts of an environment equal to paths.local_code_dir here.

Runs on the control host; all hosts at the same time. Only files that differ are sent, files that
the source has not are removed, what sync.exclude names is neither sent nor removed. May run again
at any time: what a cut left is used. A folder that is not empty and no copy of ours is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Compare, send, verify, and print a line for each host."""
    from contextlib import nullcontext

    from omnikit import code_sync, host_records, jobs, who
    from omnikit.deployment import control_folder
    from omnikit.errors import ActionError, InputError
    from omnikit.host_code_tree import shown
    from omnikit.image_pull import chosen
    from omnikit.log import say
    from omnikit.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    hosts = chosen(plan, options.host)
    request = code_sync.Request(
        dry_run=options.dry_run, verify=options.verify, replace=options.replace
    )
    code_sync.destination(config, plan)
    lock = control_folder(config.environment) / "lock"
    what = f"sync of the source for {config.environment}"
    audited = nullcontext() if options.dry_run else who.audited(config.environment, what)
    with host_records.locked(lock, what), audited:
        made = code_sync.source(config, options.verify)
        say(made.line())
        for warning in made.warnings:
            say(f"note: {warning}")
        done = code_sync.sync(config, plan, hosts, made, request)
        results = {host: one.result for host, one in done.items() if one.result is not None}
        if options.json:
            print(json.dumps(report(done), indent=1))
        else:
            for host, result in results.items():
                print(f"{host}: {code_sync.line(result)}")
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/sync_code.py --environment 2p1d")
    add_config_options(made)
    made.add_argument(
        *("--host", "-H"),
        action="append",
        default=[],
        metavar="NAME",
        help="only this host of the environment (may be repeated)",
    )
    made.add_argument("--verify", action="store_true", help="read all files again, on both ends")
    made.add_argument(
        "--replace",
        action="store_true",
        help="also a folder that is no copy of ours; what is in it besides is removed",
    )
    made.add_argument("--dry-run", action="store_true", help="show what would change")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
