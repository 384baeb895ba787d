#!/usr/bin/env python3
"""Watch an environment: who serves, how fast, what a deploy or roll is doing, what happened.

Runs on the control host, changes nothing. A live view in the terminal until q or Ctrl-C; where
standard output is no terminal, one look. --web serves the same as a page that only shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.config.config import Config

_BETWEEN_S = 1.0


def body(options: argparse.Namespace) -> int:
    """Look and show."""
    from omnikit.monitor import look

    config = load_config(options, going=True)
    if options.json:
        print(json.dumps(look.Looker(config).look(), indent=1))
        return 0
    if options.web is not None:
        from omnikit.monitor import web

        return web.serve(config, look.Looker(config), options.web)
    return view(config, once=options.once)


def view(config: Config, once: bool = False) -> int:
    """The live view; once, or where there is no terminal: one look."""
    from rich.console import Console

    from hostkit.base import health
    from hostkit.base.log import terminal
    from omnikit.monitor import look, screen

    looker = look.Looker(config)
    console = Console(file=terminal(), highlight=False)
    if console.is_terminal and not once:
        screen.show(looker.look, config.settings.fleet.watch_s, console)
    else:
        looker.look()  # rates are those between two looks
        health.wait_until(lambda: False, _BETWEEN_S, _BETWEEN_S)
        console.print(screen.view(looker.look(), console.width, 1000))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--once", action="store_true", help="one look, also in a terminal")
    made.add_argument(
        "--web",
        nargs="?",
        const="127.0.0.1:7080",
        metavar="ADDRESS:PORT",
        help="serve the page (default 127.0.0.1:7080); elsewhere than on the loopback it wants a"
        " key of proxy.api_keys, and speaks TLS where the proxy does",
    )
    add(made, json="print one look as JSON")


main = Script(__doc__, body, arguments, example="python scripts/watch.py --environment local")


if __name__ == "__main__":
    sys.exit(main())
