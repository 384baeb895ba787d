#!/usr/bin/env python3
"""Stop an environment, then deploy it.

Runs on the control host. The same as stop.py and then deploy.py --yes.
"""

from __future__ import annotations

import argparse
import sys

import deploy
import stop

from omnikit.front.options import add_config, chosen
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Stop; deploy if that went well."""
    words = chosen(options)
    return stop.main(words) or deploy.main([*words, "--yes"])


main = Script(__doc__, body, add_config, example="python scripts/restart.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
