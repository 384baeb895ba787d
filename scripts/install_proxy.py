#!/usr/bin/env python3
"""Find the software of the PD proxy on this machine, or install it; says which kind runs and why.

Runs on the host of the proxy. As root on Debian and Ubuntu it installs nginx and its Lua module
from the system's packages, without starting or enabling the distribution's own nginx service.
Where that is not to be had it installs vllm-router into a virtual environment of its own (--venv).
A second run changes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from hostkit.base import log
from omnikit.fleet import apt
from omnikit.front.options import add
from omnikit.front.script import Script, always_bare
from omnikit.proxy import install


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--kind", choices=install.KINDS, default="auto", help="default: %(default)s")
    made.add_argument("--venv", type=Path, metavar="DIR", help="where vllm-router is or goes")
    made.add_argument(
        "--lock-timeout",
        type=int,
        default=apt.LOCK_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for another apt-get to end (default: %(default)s)",
    )
    add(made, "dry-run", json="the result as one JSON object")


def body(given: argparse.Namespace) -> int:
    """Look, install if need be, report."""
    outcome = install.install(
        given.kind,
        given.venv.absolute() if given.venv else None,
        dry_run=given.dry_run,
        lock_timeout_s=given.lock_timeout,
        report=log.say,
    )
    if given.json:
        print(json.dumps(dataclasses.asdict(outcome)))
    else:
        program = outcome.nginx or outcome.router or "-"
        print(f"{outcome.action}: proxy kind {outcome.kind} ({outcome.why}), program {program}")
    return 0


main = Script(
    __doc__,
    body,
    arguments,
    example="python3 scripts/install_proxy.py --venv build/vllm-router",
    bare=always_bare,
)


if __name__ == "__main__":
    sys.exit(main())
