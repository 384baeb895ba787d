#!/usr/bin/env python3
"""omni-infer's one-click commands, with the same file: serve, status, stop.

omni_cli serve FILE deploys what omni_infer_deployment.yml describes and proves that it serves;
omni_cli status asks for one completion; omni_cli stop ends what serve started. Other tasks take the
same file too: invoke plan --config FILE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hostkit.base.errors import InputError
from omnikit.front.script import Script

# The newer omni_cli of v0.4.1 has the same in JSON.
DEFAULT_FILES = ("omni_infer_deployment.yml", "omni_infer_deployment.json")


def body(options: argparse.Namespace) -> int:
    """One of the three verbs."""
    from omnikit.config import config as config_config

    there = [name for name in DEFAULT_FILES if Path(name).is_file()]
    file = Path(options.file or [*there, *DEFAULT_FILES][0])
    if not file.is_file():
        raise InputError("there is no such file.", where=str(file), todo="name it, or cd to it")
    config = config_config.load(str(file.absolute()), (), options.set)
    if options.verb == "serve":
        from omnikit.deploy import acts, deploy

        config.refuse_examples()
        return deploy.deploy(config, acts.Options(yes=options.yes))
    if options.verb == "status":
        from omnikit.deploy import status

        found = status.collect(config)
        print(status.as_text(found))
        return 0 if found["ok"] else 1
    from omnikit.deploy import stop

    done = stop.stop(config, set())
    print("\n".join(f"{name}: {what}" for name, what in done.items()) or "nothing to stop")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.prog = "omni_cli"
    verbs = made.add_subparsers(dest="verb", required=True, metavar="serve|status|stop")
    for name, text in (
        ("serve", "deploy, and prove that it serves"),
        ("status", "show every server's state and ask for one completion"),
        ("stop", "end what was started"),
    ):
        verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == "serve":
            verb.add_argument("file", metavar="FILE", help=" or ".join(DEFAULT_FILES))
            verb.add_argument("--yes", action="store_true", help="replace what runs without asking")
        else:
            verb.add_argument(
                "--config",
                dest="file",
                metavar="FILE",
                help=f"default: {' or '.join(DEFAULT_FILES)}",
            )
        verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting")


main = Script(__doc__, body, arguments, example=f"omni_cli serve {DEFAULT_FILES[0]}")


if __name__ == "__main__":
    sys.exit(main())
