#!/usr/bin/env python3
"""Write what Prometheus and Grafana need to watch an environment: targets, alerts, a dashboard.

Runs on the control host; asks nobody and starts nothing. Every API server's /metrics is read, with
labels for environment, role, instance and host, and the proxy's where it has them (nginx-lua). A
README beside the files says how to use them. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from omnikit.front.options import add, add_config, chosen, load_config
from omnikit.front.script import Script

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def address(text: str) -> str:
    """host:port."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[2]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    return text


def body(options: argparse.Namespace) -> int:
    """Write and print."""
    from hostkit.base.errors import ActionError, InputError
    from hostkit.base.log import table
    from omnikit.config.layers import control_folder, shown_path
    from omnikit.monitor import files
    from omnikit.topology.topology import make_plan

    config = load_config(options)
    plan = make_plan(config)
    if options.exporter and plan.proxy is None:
        raise InputError(
            f"{plan.environment} has no proxy for which an exporter could speak.",
            where="--exporter",
            todo="leave it out",
        )
    folder = (options.out or control_folder(config.environment) / "monitoring").absolute()
    again = chosen(options) or [f"--environment={config.environment}"]
    again += [f"--exporter={options.exporter}"] if options.exporter else []
    again += [f"--out={folder}"] if options.out else []
    made = files.files(config, plan, folder, options.exporter, again)
    try:
        done = files.write(folder, made, dry_run=options.dry_run)
    except OSError as error:
        raise ActionError(
            f"the files cannot be written: {error.strerror}.",
            where=str(error.filename or folder),
            todo="choose another folder: --out DIR",
        ) from error
    if options.json:
        print(json.dumps({"folder": str(folder), "files": done}, indent=1))
        return 0
    print(table([[name, what] for name, what in done.items()], ["file", ""]))
    readme = shown_path(folder / files.README)
    print(f"in {shown_path(folder)}; how to use them: {readme}")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--exporter",
        type=address,
        metavar="HOST:PORT",
        help="an nginx-prometheus-exporter to be read for the proxy",
    )
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="folder (default build/control/NAME/monitoring)"
    )
    add(made, "json", dry_run="say what would be written")


main = Script(__doc__, body, arguments, example="python scripts/metrics.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
