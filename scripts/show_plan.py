#!/usr/bin/env python3
"""Show what a deploy would do before it does it: instances, hosts, devices, ports, ranks, files.

Runs on the control host, changes nothing. For this machine it also says what differs from what
runs now; other hosts are compared with what was last sent to them, or asked with --live.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Plan and print."""
    from omnikit import plan_report

    return plan_report.show(
        load_config(options),
        as_json=options.json,
        commands=options.commands,
        contents=options.files,
        asked=options.live,
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/show_plan.py --environment 2p1d")
    add_config_options(made)
    made.add_argument("--commands", action="store_true", help="print every command in full")
    made.add_argument("--files", action="store_true", help="print every rendered file in full")
    made.add_argument("--live", action="store_true", help="ask every host now, over SSH too")
    made.add_argument("--json", action="store_true", help="print the plan as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
