#!/usr/bin/env python3
"""Build a container image on this machine: cpu-engine, omni-infer, control, or one of a folder.

Needs Docker or Podman, and a network for Debian's and Python's packages. Wheels are fetched here,
by this machine's pip, into build/image. A second run says "unchanged"; see docker/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from hostkit.base.log import say
from omnikit.front.options import add, add_config, add_word, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Build and say what came of it."""
    from hostkit.base.errors import InputError
    from omnikit.images import build
    from omnikit.images.recipes import Asked

    args = {}
    for given in options.build_arg:
        name, equals, value = given.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"{given!r} is not NAME=VALUE.", where="--build-arg")
        args[name] = value
    asked = Asked(options.name, options.tag, options.base, options.wheels, args)
    found = build.build(load_config(options), asked, say, dry_run=options.dry_run)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print("\n".join([*found.commands, f"{found.image}: {found.result}"]))
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_word(
        made, "name", "cpu-engine, omni-infer, control, or a folder (default: container.build)"
    )
    made.add_argument("--tag", metavar="T", help="what it is called (default: container.image)")
    made.add_argument(
        "--base", metavar="IMAGE", help="what it starts from (default: container.build_base)"
    )
    made.add_argument(
        "--wheels",
        type=Path,
        metavar="DIR",
        help="omni-infer's wheels (default: build/dist in paths.local_code_dir)",
    )
    made.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of the Dockerfile, for example APT_MIRROR=http://HOST/debian (repeatable)",
    )
    add_config(made)
    add(made, "json", dry_run="print the commands, do nothing")


main = Script(__doc__, body, arguments, example="scripts/build_image.py cpu-engine")


if __name__ == "__main__":
    sys.exit(main())
