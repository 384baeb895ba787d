"""End a container that this toolkit made, or all containers of an environment.

With NAME: that container on this machine. Without: those that an environment plans, on all its
hosts. A container that this toolkit did not make is never touched without --replace. Stopping
keeps what is in a container, removing does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

from hostkit.base import cli
from omnikit.front.options import add_config, load_config


def body(options: argparse.Namespace) -> int:
    """End by name, or what is planned."""
    from hostkit.agent import jobs
    from omnikit.images import containers

    job = "remove-container" if options.remove else "stop-container"
    if options.name:
        options.environment = options.environment or containers.GUIDE_ENVIRONMENT
    config = load_config(options)
    if options.name:
        spec = containers.by_hand(config, "none", options.name)
        if options.dry_run:
            print(f"{job} {options.name}")
            return 0
        # By its name any container of ours may be ended, whichever environment it belongs to.
        parameters = {"spec": {**spec, "owner": None}, "replace": options.replace}
        found = [jobs.find(job)(parameters)]
    elif options.dry_run:
        for host, own in containers.specs(config, options.host).items():
            print("\n".join(f"{host}: {job} {name}" for name in own))
        return 0
    else:
        found = containers.do_planned(config, job, options.host, replace=options.replace)
    print(json.dumps(found, indent=1) if options.json else containers.as_text(found))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="scripts/stop_container.sh p0")
    made.prog = "stop_container.sh, remove_container.sh"
    made.add_argument("name", nargs="?", metavar="NAME", help="the container's name")
    way = made.add_mutually_exclusive_group(required=True)
    way.add_argument("--stop", action="store_true", help="keep it (set by stop_container.sh)")
    way.add_argument("--remove", action="store_true", help="(set by remove_container.sh)")
    add_config(made)
    made.add_argument("--host", action="append", default=[], help="only this host (repeatable)")
    made.add_argument("--replace", action="store_true", help="also another's container")
    made.add_argument("--dry-run", action="store_true", help="show what would be ended")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
