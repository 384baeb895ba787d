#!/usr/bin/env python3
"""Stop and remove the containers of an environment, or one by NAME on this machine.

With NAME: that container on this machine. Without: those that an environment plans, on all its
hosts. What is in a container goes with it; one that this toolkit did not make is never touched
without --replace. May run again.
"""

from __future__ import annotations

import argparse
import sys

import stop_container

from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Remove by name, or what is planned."""
    return stop_container.end("remove-container", options)


main = Script(__doc__, body, stop_container.arguments, example="scripts/remove_container.py p0")


if __name__ == "__main__":
    sys.exit(main())
