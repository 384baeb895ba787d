#!/usr/bin/env python3
"""Have a container image on this machine, or on all hosts of an environment.

Runs on the control host, or on any host by hand. With IMAGE alone: on this machine. With
--environment: on its hosts, image.at_once at a time; IMAGE is then container.image unless it is
given. An image that is there and current is not fetched again. Mirrors, log-in, attempts and the
space needed are settings (section image). Hosts that cannot pull get the layers that they lack from
one that has the image, and from each other (image.pass_on); --from names it. For hosts without
internet: --export on a machine that has it, then --from-archive. Nothing is ever removed but names
that a mirror's image had.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence

from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.log import say
from omnikit.front.options import add, add_config, add_word, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config
    from omnikit.fleet.jobs import Done
    from omnikit.plan.types import Plan

    Dones = Mapping[str, Done]


def body(options: argparse.Namespace) -> int:
    """Pull, export or load, and report."""
    from omnikit.fleet import jobs

    if options.export and (options.from_archive or options.host):
        raise InputError("--export works on this machine alone: not with --host, --from-archive.")
    if getattr(options, "from") and (options.export or options.from_archive):
        raise InputError("--from names a host that has it: not with --export, --from-archive.")
    config = load_config(options, going=not options.export)
    plan, hosts = _where(options, config)
    done = (_load if options.from_archive else _pull)(options, config, plan, hosts)
    if done is None:
        return 0
    _report(done, options.json)
    jobs.results(done)
    return 0


def _where(options: argparse.Namespace, config: Config) -> tuple[Optional[Plan], list[str]]:
    """The plan, None when only this machine is meant, and the names of those that do it."""
    from omnikit.images import pull
    from omnikit.topology import topology

    environment = options.environment or os.environ.get("OMNIKIT_ENVIRONMENT")
    if options.export:  # here, but for its hosts
        plan = topology.make_plan(config) if environment or options.config else None
        return plan, [pull.HERE]
    by_hand = bool(options.image or options.from_archive)
    if by_hand and not (environment or options.config or options.host or getattr(options, "from")):
        return None, [pull.HERE]
    plan = topology.make_plan(config)
    return plan, pull.chosen(plan, options.host)


def _pull(
    options: argparse.Namespace, config: Config, plan: Optional[Plan], hosts: Sequence[str]
) -> Optional[Dones]:
    from hostkit.containers import images
    from omnikit.images import pull
    from omnikit.spread import layers

    image = pull.wanted(config, options.image)
    if options.dry_run:
        own = plan if options.export else None
        lines = pull.commands(config, image, options.export, own)
        lines += layers.commands(config, image) if getattr(options, "from") else []
        _show_commands(hosts, lines, options.json)
        return None
    if options.export:
        return _here(lambda: pull.export(config, image, options.export, plan))
    if plan is None:
        return _here(lambda: images.pull(pull.here(config, image)))
    return layers.bring(config, plan, hosts, image, origin=getattr(options, "from"))


def _load(
    options: argparse.Namespace, config: Config, plan: Optional[Plan], hosts: Sequence[str]
) -> Optional[Dones]:
    from hostkit.containers import images
    from omnikit.images import pull
    from omnikit.spread import layers

    image = options.image or config.settings.container.image
    given = pull.loading(config, options.from_archive, image)
    if options.dry_run:
        _show_commands(hosts, pull.load_commands(config, given), options.json)
        return None
    if plan is None:
        return _here(lambda: images.load({**given, "elsewhere": True}))
    return layers.load(config, plan, hosts, given)


def _here(act: Callable[[], dict[str, Any]]) -> dict[str, Done]:
    """What became of something done on this machine."""
    from omnikit.fleet import jobs
    from omnikit.images import pull

    try:
        return {pull.HERE: jobs.Done(result=act())}
    except ToolkitError as error:
        return {pull.HERE: jobs.Done(error=error)}


def _report(done: Mapping[str, Done], as_json: bool) -> None:
    from omnikit.images import pull

    found = {host: d.result for host, d in done.items() if d.result is not None}
    if as_json:
        errors = {host: str(d.error) for host, d in done.items() if d.error is not None}
        print(json.dumps({"hosts": found, "errors": errors}, indent=1))
        return
    for host, result in found.items():
        print(f"{host}: {pull.line(result)}")


def _show_commands(hosts: Sequence[str], lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"commands": {host: list(lines) for host in hosts}}, indent=1))
        return
    say("what may run, in this order; registries are asked until one gives the image")
    for host in hosts:
        print(f"{host}:")
        for line in lines:
            print(f"  {line}")


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_word(made, "image", "REPOSITORY:TAG or REPOSITORY@sha256:DIGEST (default: container.image)")
    add_config(made)
    add(made, host="only on this host of the environment (repeatable)")
    made.add_argument(
        "--from",
        default="",
        metavar="HOST",
        help="who gives the others the layers that they lack, and asks the registry only if it has"
        " no such image: a host, or here (this machine)",
    )
    made.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the image into an archive FILE here, and FILE.sha256",
    )
    made.add_argument(
        "--from-archive",
        type=Path,
        metavar="FILE",
        help="do not pull: load this archive where the image is missing, by the layers that are",
    )
    add(made, "json", dry_run="show the commands, run nothing")


main = Script(
    __doc__,
    body,
    arguments,
    example="scripts/pull_image.py swr.cn-southwest-2.myhuaweicloud.com/omni-ai/omniinfer:TAG",
)


if __name__ == "__main__":
    sys.exit(main())
