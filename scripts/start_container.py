#!/usr/bin/env python3
"""Start the engine's container, as the install guide does, or all containers of an environment.

start_container.py IMAGE NAME works on this machine, with the flags of configs/defaults.yaml,
section container. Without IMAGE and NAME it starts what an environment plans, on all its hosts.
It looks first: a container that is as wanted is left alone, one that was made differently is made
anew and the difference named; one of somebody else is never touched without --replace.
"""

from __future__ import annotations

import argparse
import json
import sys

from hostkit.base.errors import InputError
from omnikit.front.options import add, add_config, add_word, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Start by name, or what is planned."""
    from hostkit.base.log import say
    from hostkit.containers import containers as containers_containers
    from omnikit.images import containers

    if options.image and not options.name:
        raise InputError("IMAGE and NAME belong together.", todo="start_container.py IMAGE NAME")
    if options.image:
        # By hand it is the guide's container, whatever environment is the default.
        options.environment = options.environment or containers.GUIDE_ENVIRONMENT
        spec = containers.by_hand(load_config(options), options.image, options.name)
        if options.dry_run:
            what = containers.what_differs(spec, options.replace)
            say(f"{options.name}: {what}" if what else f"{options.name}: not looked at")
            print(containers.command(spec))
            return 0
        found = [containers_containers.ensure({"spec": spec, "replace": options.replace})]
    else:
        config = load_config(options, going=True)
        if options.dry_run:
            print("\n".join(containers.commands(containers.specs(config, options.host))))
            return 0
        found = containers.do_planned(config, "container", options.host, replace=options.replace)
    print(json.dumps(found, indent=1) if options.json else containers.as_text(found))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_word(made, "image", "name or id of an image here")
    add_word(made, "name", "the container's name")
    add_config(made)
    add(made, "host", "json", replace="also replace another's container")
    add(made, dry_run="print the commands, change nothing")


main = Script(
    __doc__, body, arguments, example="scripts/start_container.py omniinfer:202506272026 p0"
)


if __name__ == "__main__":
    sys.exit(main())
