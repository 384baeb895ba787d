#!/usr/bin/env python3
"""Start the API servers of one node, watch them, and end them all on SIGTERM or Ctrl-C.

Runs on the host that serves (or in its container), in the foreground. Writes one log file per
server and the node's record below the work directory. When a server dies during the start, the
others are ended and the exit status is 1. Running it again while the first runs is refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import InputError


def body(options: argparse.Namespace) -> int:
    """Check what is asked for, then hand over to the supervisor."""
    from hostkit.base import records
    from hostkit.base.run import show
    from hostkit.files import regular
    from hostkit.nodes import proxy_run, supervisor

    try:
        host = regular.parsed(options.host_file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the host file: {error}.",
            where=str(options.host_file),
            todo="deploy writes it: bundle/host.json below the work directory",
        ) from error
    node = supervisor.find_node(host, options.node)
    if node is None:
        names = ", ".join(entry["name"] for entry in host["nodes"])
        raise InputError(f"there is no node {options.node!r}, found: {names}.", where="--node")
    if "programs" in node:
        node = proxy_run.with_program(node)
    if options.dry_run:
        for server in node["servers"]:
            print(show(server["argv"]))
        return 0
    if options.take_over:
        return supervisor.take_over(host, node)
    record = records.read_record(Path(host["work_dir"]) / "state", options.node)
    if record and records.alive(record["supervisor"]):
        raise InputError(
            f"{options.node} runs already, supervised by pid {record['supervisor']['pid']}.",
            where="--node",
            todo=f"end that process first: kill {record['supervisor']['pid']}",
        )
    return supervisor.Supervisor(host, node).run()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        __doc__ or "",
        example="python3 launch_servers.py --host-file bundle/host.json --node p0",
    )
    made.add_argument("--host-file", type=Path, required=True, metavar="FILE", help="host.json")
    made.add_argument("--node", required=True, metavar="NAME", help="for example p0 or d0")
    made.add_argument("--dry-run", action="store_true", help="print the commands, start nothing")
    made.add_argument(
        "--take-over",
        action="store_true",
        help="start it again if its supervisor was killed and restart.policy says so",
    )
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
