#!/usr/bin/env python3
"""Fetch the logs of all hosts of an environment into one folder and say what errors are in them.

Runs on the control host. On the hosts nothing but an archive is written, which is removed again;
secrets are taken out of the logs there. The folder gets the files by host and instance, index.json
and summary.txt. Exits 1 when a host could not be asked; the others' logs are there then.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Optional

from hostkit.base import cli
from omnikit.front.options import add, add_config, load_config, seconds, since
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Fetch and print the summary."""
    from omnikit.config.layers import PROJECT, shown_path
    from omnikit.logs import fetch

    config = load_config(options, going=True)
    given, limits = config.settings.paths.local_log_dir, config.settings.logs
    wanted = fetch.Wanted(
        hosts=options.host,
        instances=options.instance,
        since=options.since or "",
        since_s=seconds(options.since) if options.since else None,
        max_file_bytes=_bytes(options.max_mib or limits.fetch_file_mib, options.all),
        max_bytes=_bytes(limits.fetch_mib, options.all),
        out=options.out or (Path(given).expanduser() if given else PROJECT / "build" / "logs"),
    )
    fetched = fetch.fetch(config, wanted)
    if options.json:
        print(json.dumps({"folder": str(fetched.folder), **fetched.index}, indent=1))
    else:
        print(f"{fetched.text}\nall of it: {shown_path(fetched.folder)}")
    return 1 if fetched.failed else 0


def _bytes(mib: int, everything: bool) -> Optional[int]:
    return None if everything or not mib else mib << 20


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "host", "instance")
    made.add_argument(
        "--since", type=since, metavar="TIME", help="only of the last 30m, 2h, 1d (hosts' clocks)"
    )
    made.add_argument(
        "--max-mib",
        type=cli.positive,
        metavar="N",
        help="of larger files only the last N MiB (default: logs.fetch_file_mib)",
    )
    made.add_argument("--all", action="store_true", help="all files whole, however large")
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the folder is made (default: paths.local_log_dir, else build/logs)",
    )
    add(made, json="print the index as JSON")


main = Script(__doc__, body, arguments, example="python scripts/fetch_logs.py -e 2p1d --since 2h")


if __name__ == "__main__":
    sys.exit(main())
