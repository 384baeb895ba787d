#!/usr/bin/env python3
"""Look at hosts, propose a layout on them with its reasons, write it as one environment.

Runs on the control host. Asks for what it is not told and cannot find out. Looks at the hosts over
SSH and leaves nothing there; all that it writes is the environment's file. Where that is there, it
shows what differs now, and writes it with --yes; what else stands in the file is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omnikit.front.options import add
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.propose.proposal import Wish


def body(options: argparse.Namespace) -> int:
    """Set up keys if that is wanted, look, propose, write."""
    from omnikit.propose import proposal

    login = {"user": options.user, "private_key": options.key, "port": options.port}
    login.update(jump=options.jump, python=options.python)
    wish = proposal.Wish(
        options.environment,
        [word for words in options.hosts for word in words.split(",")],
        login,
        options.model,
        options.engine,
        options.release,
        options.yes,
    )
    if options.setup_keys or options.password_file:
        code = _keys(wish, options)
        if code:
            return code
    return proposal.run(wish)


def _keys(wish: Wish, options: argparse.Namespace) -> int:
    """What invoke setup-keys does, before there is an environment."""
    import tempfile

    import setup_keys

    from omnikit.propose import proposal

    with tempfile.TemporaryDirectory(prefix="omnikit-") as folder:
        file = Path(folder) / "init.yaml"
        file.write_text(proposal.only_hosts(wish), encoding="utf-8")
        words = ["--environment", str(file)]
        words += ["--password-file", str(options.password_file)] if options.password_file else []
        words += ["--yes"] if options.yes else []
        return setup_keys.main(words)


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument(
        "-e",
        "--environment",
        metavar="NAME",
        default="site",
        help="what it is to be called, configs/environments/NAME.local.yaml, or a path"
        " (default: site)",
    )
    made.add_argument(
        "--hosts",
        action="append",
        default=[],
        metavar="ADDRESS,…",
        help="ADDRESS, 10.0.0.11-14 or NAME=ADDRESS, with commas; an address by which hosts reach"
        " each other (repeatable)",
    )
    made.add_argument("--model", metavar="NAME", help="a name in configs/models")
    made.add_argument(
        "--engine", metavar="NAME", help="ascend (omni-infer), vllm-ascend or cpu (this machine)"
    )
    made.add_argument("--release", metavar="NAME", help="of the engine: a name in configs/versions")
    made.add_argument("--user", metavar="NAME", help="SSH user of the hosts (default: root)")
    made.add_argument("--key", metavar="FILE", help="SSH key (default: keys.private_key)")
    made.add_argument("--port", type=int, metavar="PORT", help="SSH port")
    made.add_argument("--jump", metavar="USER@HOST", help="SSH jump host")
    made.add_argument("--python", metavar="PROGRAM", help="Python 3.9 or newer on the hosts")
    made.add_argument(
        "--setup-keys", action="store_true", help="first do as setup-keys: record and spread keys"
    )
    made.add_argument(
        "--password-file", type=Path, metavar="FILE", help="of --setup-keys: the password (0600)"
    )
    add(made, yes="write what differs, and take new host keys, without asking")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/init.py --hosts 10.0.0.11-14 --model deepseek-r1-w8a8",
)


if __name__ == "__main__":
    sys.exit(main())
