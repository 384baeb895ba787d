#!/usr/bin/env python3
"""Wait until a Ray cluster has all its hosts and all their devices, then return.

Runs on a serving host or in its container, before a server that spans several hosts starts. Changes
nothing. A host that joined without devices does not count: its cards are not seen there.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Optional, Sequence

from hostkit.base import cli


def shortage(nodes: Sequence[Any], resources: Any, wanted: argparse.Namespace) -> Optional[str]:
    """What a cluster still lacks, for a person; None when it is complete.

    nodes and resources: as ray.nodes() and ray.cluster_resources() give them.
    """
    alive = [node for node in nodes if node.get("Alive")]
    amount = float(resources.get(wanted.resource, 0))
    if len(alive) < wanted.nodes:
        return f"{len(alive)} of {wanted.nodes} hosts have joined"
    if amount < wanted.amount:
        empty = [n["NodeManagerAddress"] for n in alive if not n["Resources"].get(wanted.resource)]
        missing = f"; none on {', '.join(empty)}" if empty else ""
        return f"{amount:g} of {wanted.amount} {wanted.resource} are there{missing}"
    return None


def answers(address: str) -> bool:
    """Whether anything listens at IP:PORT."""
    import socket

    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def body(options: argparse.Namespace) -> int:
    """Look until the cluster is complete."""
    from hostkit.base.errors import ActionError, InputError
    from hostkit.base.health import wait_until
    from hostkit.base.log import say

    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed for this Python.", todo="pip install ray") from error
    lacking: Optional[str] = "the head does not answer"

    def complete() -> bool:
        nonlocal lacking
        before = lacking
        if not answers(options.address):
            return False  # Ray itself would try for a long time before it says so
        try:
            if not ray.is_initialized():
                ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
            lacking = shortage(ray.nodes(), ray.cluster_resources(), options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            lacking = f"the head does not answer ({type(error).__name__})"
        if lacking and lacking != before:
            say(f"waiting for Ray at {options.address}: {lacking}")
        return lacking is None

    done = wait_until(complete, options.deadline, options.interval)
    if ray.is_initialized():
        ray.shutdown()
    if not done:
        raise ActionError(
            f"the Ray cluster is not complete after {options.deadline:g} s: {lacking}.",
            where=options.address,
            todo="look at ray.log of every host of the instance, and at npu-smi info there",
        )
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "",
        example="python3 wait_for_ray.py --address 10.0.0.1:6379 --nodes 2 --amount 32",
    )
    made.add_argument("--address", required=True, metavar="IP:PORT", help="the head")
    made.add_argument("--nodes", type=int, required=True, help="hosts that must have joined")
    made.add_argument("--resource", default="NPU", help="name of the devices (default NPU)")
    made.add_argument("--amount", type=int, required=True, help="devices on all hosts together")
    made.add_argument("--deadline", type=float, default=600.0, help="seconds (default 600)")
    made.add_argument("--interval", type=float, default=1.0, help="seconds between two looks")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
