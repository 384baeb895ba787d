#!/usr/bin/env python3
"""Bring the weights to all hosts, which pass them on while they receive them: one copy is sent.

Works on the hosts of an environment, from one that has the weights whole in model.path, or from a
folder of this machine. By BitTorrent (libtorrent, shipped to hosts that lack it) among these hosts
alone, each with a certificate of this run, on one TCP port (distribution.port). Every piece and at
the end every file is hashed, against the list that convert-weights or download-weights wrote.
A run that was cut goes on where it was; a second run changes nothing. Nothing listens afterwards.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Look, show, move, verify."""
    from contextlib import ExitStack

    from hostkit.base.errors import InputError
    from hostkit.base.log import say
    from omnikit.images.pull import chosen
    from omnikit.runs import run
    from omnikit.spread import weights as spread_weights
    from omnikit.topology.topology import make_plan

    if options.rate:
        options.set.append(f"distribution.rate={options.rate}")
    config = load_config(options, going=True)
    plan = make_plan(config)
    hosts = chosen(plan, options.host)
    origin = getattr(options, "from")
    request = spread_weights.Request(
        hosts, origin=origin, dry_run=options.dry_run, replace=options.replace
    )
    weights = spread_weights.Weights(config, plan, request)
    what = f"distribution of the weights for {config.environment}"
    with ExitStack() as held:
        if not options.dry_run:
            held.enter_context(run.changing(config, what))
        found = weights.look()
        refusals = weights.refusals(found)
        say(spread_weights.shown(weights, found))
        if refusals:
            raise InputError("\n".join(refusals))
        if not found.takers:
            print_result(options.json, spread_weights.outcome(found, {}, 0.0))
            count = len(hosts)
            say(f"all {count} hosts have it; nothing to do" if count > 1 else "nothing to do")
            return 0
        if options.dry_run:
            print_result(options.json, spread_weights.outcome(found, {}, 0.0))
            return 0
        takers = [host for host in plan.hosts if host.name in found.takers]
        held.enter_context(run.hold(config, what, hosts=takers))
        print_result(options.json, spread_weights.distribute(weights, found))
        say(f"all {len(hosts)} hosts have it, verified")
    return 0


def print_result(wanted: bool, result: dict[str, object]) -> None:
    """For programs."""
    if wanted:
        print(json.dumps(result, indent=1))


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host")
    made.add_argument(
        "--from",
        default="",
        metavar="HOST|FOLDER",
        help="who has it: a host, or a folder of this machine (default: a host with all of it)",
    )
    made.add_argument(
        "--rate", metavar="SIZE", help="most bytes a second of each host, for example 200M"
    )
    add(
        made,
        "json",
        replace="remove files in model.path that an engine may load and that do not belong to it",
        dry_run="show who has what, who lacks what, and what would be moved",
    )


main = Script(
    __doc__, body, arguments, example="python scripts/distribute_weights.py --environment 2p1d"
)


if __name__ == "__main__":
    sys.exit(main())
