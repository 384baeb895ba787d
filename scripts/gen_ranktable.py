#!/usr/bin/env python3
"""Make or merge rank tables: which device of which host is which rank.

Runs on a host with NPUs (--mode gen) or anywhere (the merging modes); Python 3.9, no packages.
Writes below --save-dir and nothing else. A file that is right already is not touched.

  gen          this host's tables: local_ranktable_IP_DEVICES.json for each device list,
               local_ranktable_IP_host.json with --api-server, and global_ranktable_IP.json
  merge        global_ranktable_IP.json of all hosts into global_ranktable_merge.json
  merge-local  the local tables of one instance over several hosts, the master's first, into
               local_ranktable_merge.json
  merge-all    the instances' tables (their files in --prefill-server-list in kv_rank order and in
               --decode-server-list) into global_ranktable_merge.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from hostkit.base import cli

EXAMPLE = (
    "scripts/gen_ranktable.py --mode gen --prefill-server-list 0,1,2,3,4,5,6,7 "
    "--save-dir /data/ranktable"
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    made = cli.parser(str(__doc__), example=EXAMPLE)
    made.add_argument("--mode", default="gen", choices=["gen", "merge", "merge-local", "merge-all"])
    made.add_argument("--save-dir", type=Path, default=Path(), help="default: this folder")
    made.add_argument("--api-server", action="store_true", help="gen: this host has an API server")
    lists = "gen: ids of each instance's devices, such as 0,1,2,3 4,5,6,7; merge-all: table files"
    for role in ("prefill", "decode"):
        made.add_argument(f"--{role}-server-list", nargs="+", default=[], metavar="IDS", help=lists)
    made.add_argument(
        "--ip", "--host-ip", dest="host_ip", help="gen: default: that of the default route"
    )
    for name, mode in (("global", "merge"), ("local", "merge-local")):
        option = f"--{name}-ranktable-list"
        made.add_argument(option, nargs="+", default=[], metavar="FILE", help=f"{mode}: the tables")
    made.add_argument(
        "--api-server-list",
        nargs="+",
        default=[],
        metavar="FILE",
        help="merge-all: host tables; checked, not part of the result",
    )
    asking = made.add_argument_group("where gen finds device addresses")
    asking.add_argument(
        "--devices-source", default="auto", choices=["auto", "hccn_tool", "hccn.conf"]
    )
    asking.add_argument("--hccn-tool", default="hccn_tool", metavar="PATH")
    asking.add_argument("--hccn-conf", type=Path, default=Path("/etc/hccn.conf"), metavar="PATH")
    asking.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="S", help="for one answer (default 10)"
    )
    made.add_argument("--dry-run", action="store_true", help="say what would be written")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(_body, made, argv)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0")
    return seconds


def _body(options: argparse.Namespace) -> int:
    import json

    from hostkit.base.log import say
    from hostkit.ranks import ranktable as ranks_files
    from hostkit.ranks.modes import make

    made = make(options)
    for note in made.notes:
        say(f"note: {note}.")
    states = ranks_files.save_all(options.save_dir, made.texts(), dry_run=options.dry_run)
    if options.json:
        files = [{"path": str(options.save_dir / name), "result": states[name]} for name in states]
        result = {"mode": options.mode, "dry_run": options.dry_run, "files": files, **made.facts}
        print(json.dumps({**result, "notes": made.notes}, indent=1))
        return 0
    for name, state in states.items():
        would = "would be " if options.dry_run and state != "unchanged" else ""
        print(f"{options.save_dir / name}: {would}{state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
