#!/usr/bin/env python3
"""Build omni-infer and vLLM from source and install them: fetch, build, install, check.

Runs on the control host, or on any host by hand. Alone: on this machine. With --environment: on its
hosts. With --in-container: in that container of each. The folder is omni-infer's source
(paths.code_dir; here paths.local_code_dir if it is set), vLLM's goes into infer_engines/vllm below
it; where from, which versions and for which Python are settings (section source). A clone with
changes of its own is left alone. Each step may run alone, and again: what is current stays.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Optional, Sequence

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config
    from omnikit.plan.types import Plan

_STEPS = ("fetch", "build", "install", "check")


def body(options: argparse.Namespace) -> int:
    """Do the steps in order; the first that fails is the last."""
    from omnikit.fleet import jobs
    from omnikit.source import build

    config = load_config(options, going=True)
    plan, hosts = _where(options, config)
    steps = [step for step in build.STEPS if not options.only or step in options.only]
    given = build.parameters(
        config, plan, hosts, steps, folder=options.dir, container=options.in_container
    )
    if options.dry_run:
        _show(steps, given, options.json)
        return 0
    report: dict[str, Any] = {}
    try:
        for step in steps:
            done = build.do(config, plan, step, given)
            report[step] = {
                "hosts": {host: d.result for host, d in done.items() if d.result is not None},
                "errors": {host: str(d.error) for host, d in done.items() if d.error is not None},
            }
            text = build.report(step, done)
            if text and not options.json:
                print(text, flush=True)
            jobs.results(done)
            if step == "check":
                build.check_found(done)
    finally:
        if options.json:
            print(json.dumps(report, indent=1))
    return 0


def _where(options: argparse.Namespace, config: Config) -> tuple[Optional[Plan], list[str]]:
    """The plan, None when only this machine is meant, and the hosts' names."""
    from omnikit.images import pull
    from omnikit.source import build
    from omnikit.topology import topology

    environment = options.environment or os.environ.get("OMNIKIT_ENVIRONMENT")
    if not (environment or options.config or options.host):
        return None, [build.HERE]
    plan = topology.make_plan(config)
    return plan, pull.chosen(plan, options.host)


def _show(steps: Sequence[str], given: dict[str, dict[str, Any]], as_json: bool) -> None:
    from hostkit.base.log import say
    from omnikit.source import build

    lines = {
        host: {step: build.commands(step, one) for step in steps} for host, one in given.items()
    }
    if as_json:
        print(json.dumps({"commands": lines}, indent=1))
        return
    say("what may run, in this order; what is there and current is left alone")
    for host, by_step in lines.items():
        for step, commands in by_step.items():
            print(f"{host}: {step}")
            for line in commands:
                print(f"  {line}")


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument(
        "--only",
        action="append",
        default=[],
        choices=_STEPS,
        help="only this step (may be repeated; the order stays)",
    )
    _not_of_steps(made)


def _not_of_steps(made: argparse.ArgumentParser) -> None:
    add_config(made)
    add(made, host="only on this host of the environment (repeatable)")
    made.add_argument("--dir", metavar="DIR", help="omni-infer's source (default: paths.code_dir)")
    made.add_argument(
        "--in-container",
        metavar="NAME",
        help="do it in this running container; DIR is then a path in it",
    )
    add(made, "json", dry_run="show the commands, run nothing")


def alone(doc: Optional[str], name: str, *steps: str) -> Script:
    """The script of some steps alone: it takes all options but the one that chooses steps."""

    def only(options: argparse.Namespace) -> int:
        return body(argparse.Namespace(**vars(options), only=steps))

    return Script(doc, only, _not_of_steps, example=f"scripts/{name}.py --dir ~/omniinfer")


main = Script(__doc__, body, arguments, example="scripts/build_from_source.py --dir ~/omniinfer")


if __name__ == "__main__":
    sys.exit(main())
