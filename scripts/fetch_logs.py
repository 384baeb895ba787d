#!/usr/bin/env python3
"""Fetch the logs of all hosts of an environment into one folder and say what errors are in them.

Runs on the control host. On the hosts nothing but an archive is written, which is removed again;
secrets are taken out of the logs there. The folder gets the files by host and instance, index.json
and summary.txt. Exits 1 when a host could not be asked; the others' logs are there then.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """A time like 90s, 30m, 2h or 1d in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write for example 30m, 2h or 1d")
    return float(found.group(1)) * _UNITS[found.group(2)]


def body(options: argparse.Namespace) -> int:
    """Fetch and print the summary."""
    from omnikit import log_fetch
    from omnikit.layers import PROJECT, shown_path

    wanted = log_fetch.Wanted(
        hosts=options.host,
        instances=options.instance,
        since=options.since or "",
        since_s=seconds(options.since) if options.since else None,
        max_file_bytes=options.max_mib << 20 if options.max_mib else None,
        out=options.out or PROJECT / "build" / "logs",
    )
    fetched = log_fetch.fetch(load_config(options), wanted)
    if options.json:
        print(json.dumps({"folder": str(fetched.folder), **fetched.index}, indent=1))
    else:
        print(f"{fetched.text}\nall of it: {shown_path(fetched.folder)}")
    return 1 if fetched.failed else 0


def since(text: str) -> str:
    """A time, as it was given."""
    seconds(text)
    return text


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/fetch_logs.py -e 2p1d --since 2h")
    add_config_options(made)
    made.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="only this host (repeatable)"
    )
    made.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="NAME",
        help="only this instance, for example p0 (repeatable)",
    )
    made.add_argument(
        "--since", type=since, metavar="TIME", help="only of the last 30m, 2h, 1d (hosts' clocks)"
    )
    made.add_argument(
        "--max-mib", type=cli.positive, metavar="N", help="of larger files only the last N MiB"
    )
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="where the folder is made (default build/logs)"
    )
    made.add_argument("--json", action="store_true", help="print the index as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
