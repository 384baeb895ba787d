#!/usr/bin/env python3
"""Stop an environment, or an instance of it, then deploy it.

Runs on the control host. The same as stop.py and then deploy.py --yes; with --instance the others
go on, and deploy asks before it would replace one of them (--yes: it does not ask). What an
instance was working on is not waited for: that is what roll-prefill is for.
"""

from __future__ import annotations

import argparse
import sys

import deploy
import stop

from omnikit.front.options import add, add_config, chosen
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Stop; deploy if that went well."""
    words = chosen(options)
    only = [f"--instance={name}" for name in options.instance]
    sure = ["--yes"] if options.yes or not only else []
    return stop.main([*words, *only]) or deploy.main([*words, *sure])


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add(made, "instance", "yes")


main = Script(__doc__, body, arguments, example="python scripts/restart.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
