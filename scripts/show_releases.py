#!/usr/bin/env python3
"""Show the deployments of an environment that ended well: when, by whom, image, source, changes.

Runs on the control host, changes nothing. The newest comes first; it is the present one.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Print the table, or everything as JSON."""
    from omnikit import releases

    environment = load_config(options).environment
    known = releases.all_of(environment)
    for problem in releases.damaged(environment):
        print(f"left out: {problem}", file=sys.stderr)
    if options.json:
        print(json.dumps([{"number": r.number, **r.about} for r in known], indent=1))
    else:
        print(releases.as_text(known) if known else "nothing was deployed yet")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/show_releases.py -e 2p1d")
    add_config_options(made)
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
