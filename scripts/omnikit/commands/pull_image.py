"""Have a container image on this machine, or on all hosts of an environment.

Runs on the control host, or on any host by hand. With IMAGE alone: on this machine. With
--environment: on its hosts, image.at_once at a time; IMAGE is then container.image unless it is
given. An image that is there and current is not fetched again. Mirrors, log-in, attempts and the
space needed are settings (section image). For hosts without internet: --export on a machine that
has it, then --from-archive. Nothing is ever removed but names that a mirror's image had.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config
from omnikit.errors import InputError, ToolkitError
from omnikit.log import say

if TYPE_CHECKING:
    from omnikit.config import Config
    from omnikit.jobs import Done
    from omnikit.plan_types import Plan

    Dones = Mapping[str, Done]


def body(options: argparse.Namespace) -> int:
    """Pull, export or load, and report."""
    from omnikit import jobs

    if options.export and (options.from_archive or options.host):
        raise InputError("--export works on this machine alone: not with --host, --from-archive.")
    config = load_config(options)
    plan, hosts = _where(options, config)
    done = (_load if options.from_archive else _pull)(options, config, plan, hosts)
    if done is None:
        return 0
    _report(done, options.json)
    jobs.results(done)
    return 0


def _where(options: argparse.Namespace, config: Config) -> tuple[Optional[Plan], list[str]]:
    """The plan, None when only this machine is meant, and the hosts' names."""
    from omnikit import image_pull, topology

    environment = options.environment or os.environ.get("OMNIKIT_ENVIRONMENT")
    by_hand = bool(options.image or options.from_archive)
    if options.export or (by_hand and not (environment or options.config or options.host)):
        return None, [image_pull.HERE]
    plan = topology.make_plan(config)
    return plan, image_pull.chosen(plan, options.host)


def _pull(
    options: argparse.Namespace, config: Config, plan: Optional[Plan], hosts: Sequence[str]
) -> Optional[Dones]:
    from omnikit import host_image, image_pull

    image = image_pull.wanted(config, options.image)
    if options.dry_run:
        lines = image_pull.commands(config, image, options.export)
        _show_commands(hosts, lines, options.json)
        return None
    if options.export:
        return _here(lambda: image_pull.export(config, image, options.export))
    if plan is None:
        return _here(lambda: host_image.pull(image_pull.parameters(config, image)))
    return image_pull.pull(config, plan, hosts, image)


def _load(
    options: argparse.Namespace, config: Config, plan: Optional[Plan], hosts: Sequence[str]
) -> Optional[Dones]:
    from omnikit import host_image, image_ship

    image = options.image or config.settings.container.image
    given = image_ship.loading(config, options.from_archive, image)
    if options.dry_run:
        _show_commands(hosts, image_ship.commands(config, given), options.json)
        return None
    if plan is None:
        return _here(lambda: host_image.load(given))
    return image_ship.load(config, plan, hosts, given)


def _here(act: Callable[[], dict[str, Any]]) -> dict[str, Done]:
    """What became of something done on this machine."""
    from omnikit import image_pull, jobs

    try:
        return {image_pull.HERE: jobs.Done(result=act())}
    except ToolkitError as error:
        return {image_pull.HERE: jobs.Done(error=error)}


def _report(done: Mapping[str, Done], as_json: bool) -> None:
    from omnikit import image_pull

    found = {host: d.result for host, d in done.items() if d.result is not None}
    if as_json:
        errors = {host: str(d.error) for host, d in done.items() if d.error is not None}
        print(json.dumps({"hosts": found, "errors": errors}, indent=1))
        return
    for host, result in found.items():
        print(f"{host}: {image_pull.line(result)}")


def _show_commands(hosts: Sequence[str], lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"commands": {host: list(lines) for host in hosts}}, indent=1))
        return
    say("what may run, in this order; registries are asked until one gives the image")
    for host in hosts:
        print(f"{host}:")
        for line in lines:
            print(f"  {line}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "",
        example="scripts/pull_image.sh swr.cn-southwest-2.myhuaweicloud.com/omni-ai/omniinfer:TAG",
    )
    made.prog = "pull_image.sh"
    made.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE",
        help="REPOSITORY:TAG or REPOSITORY@sha256:DIGEST (default: container.image)",
    )
    add_config_options(made)
    made.add_argument(
        *("--host", "-H"),
        action="append",
        default=[],
        metavar="NAME",
        help="only on this host of the environment (may be repeated)",
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
        help="do not pull: ship and load this archive where the image is missing",
    )
    made.add_argument("--dry-run", action="store_true", help="show the commands, run nothing")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
