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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config
from omnikit.log import say


def body(options: argparse.Namespace) -> int:
    """Build and say what came of it."""
    from omnikit import image_build
    from omnikit.errors import InputError
    from omnikit.image_recipes import Asked

    args = {}
    for given in options.build_arg:
        name, equals, value = given.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"{given!r} is not NAME=VALUE.", where="--build-arg")
        args[name] = value
    asked = Asked(options.name, options.tag, options.base, options.wheels, args)
    found = image_build.build(load_config(options), asked, say, dry_run=options.dry_run)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print("\n".join([*found.commands, f"{found.image}: {found.result}"]))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="scripts/build_image.py cpu-engine")
    made.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="cpu-engine, omni-infer, control, or a folder (default: setting container.build)",
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
    add_config_options(made)
    made.add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
