#!/usr/bin/env python3
"""Stop the containers of an environment, or one by NAME here; what is in them stays.

With NAME: that container on this machine. Without: those that an environment plans, on all its
hosts. A container that this toolkit did not make is never touched without --replace. May run again.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, add_word, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Stop by name, or what is planned."""
    return end("stop-container", options)


def end(job: str, options: argparse.Namespace) -> int:
    """End containers by that job of the agent: stop-container or remove-container."""
    from hostkit.agent import jobs
    from omnikit.images import containers

    if options.name:
        options.environment = options.environment or containers.GUIDE_ENVIRONMENT
    config = load_config(options, going=not options.name)
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


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_word(made, "name", "the container's name")
    add_config(made)
    add(made, "host", "json", replace="also another's container", dry_run="show what would be done")


main = Script(__doc__, body, arguments, example="scripts/stop_container.py p0")


if __name__ == "__main__":
    sys.exit(main())
