#!/usr/bin/env python3
"""Install the CPU engine (a real vLLM with KV transfer) into a virtual environment of its own.

Runs on this machine; needs Python 3.11 and a package index. Changes only the folder --venv.
All versions are pinned. A second run says "unchanged"; an interrupted one is continued.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hostkit.base.log import say
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script

if TYPE_CHECKING:
    from omnikit.engine.install import Options


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--venv", type=Path, help="folder (setting engine.venv)")
    made.add_argument("--python", metavar="PY", help="interpreter (setting engine.python)")
    made.add_argument(
        "--requirements", type=Path, metavar="FILE", help="pins (setting engine.requirements)"
    )
    made.add_argument(
        "--torch-index",
        metavar="URL",
        help="asked when the plain index has no CPU build of torch (setting engine.torch_index)",
    )
    made.add_argument(
        "--standalone",
        action="store_true",
        help="read no configuration, which needs no third-party package; needs --venv and"
        " --requirements (for images)",
    )
    add(made, "json", dry_run="print the commands, do nothing")
    add_config(made)


def _body(given: argparse.Namespace) -> int:
    from omnikit.engine import install

    places, options = _standalone(given) if given.standalone else _configured(given)
    commands: list[str] = []
    if given.dry_run:
        found, commands = install.describe(**places, options=options)
    else:
        found = install.install(**places, options=options, say=say)
    result = "unchanged" if found.state == "ready" else "installed"
    if given.dry_run and commands:
        result = "would be installed"
    if given.json:
        answer = {
            "venv": str(places["venv"]),
            "result": result,
            "found": found.state,
            "differences": list(found.differences),
            "commands": commands,
        }
        print(json.dumps(answer))
    else:
        print("\n".join([*commands, f"{places['venv']}: {result}"]))
    return 0


def _standalone(given: argparse.Namespace) -> tuple[dict[str, Path], Options]:
    """Places and options out of the command line alone."""
    from hostkit.base.errors import InputError
    from omnikit.engine.install import Options

    if not given.venv or not given.requirements:
        raise InputError("--standalone needs --venv and --requirements.")
    if given.environment or given.config or given.set:
        raise InputError("--standalone reads no configuration; leave the one or the other out.")
    places = {"venv": given.venv.absolute(), "requirements": given.requirements.absolute()}
    return places, Options(python=given.python, torch_index=given.torch_index, disk_mib=0)


def _configured(given: argparse.Namespace) -> tuple[dict[str, Path], Options]:
    """Places and options out of the configuration; what the command line says goes first."""
    from hostkit.base.errors import InputError
    from omnikit.config.layers import resolve_path
    from omnikit.engine.install import Options

    engine = load_config(given).settings.engine
    places = {}
    for name in ("venv", "requirements"):
        place = getattr(given, name)
        if place is None:
            if getattr(engine, name) is None:
                raise InputError(f"engine.{name} is not set, and there is no --{name}.")
            place = Path(resolve_path(getattr(engine, name), True))
        places[name] = place.absolute()
    return places, Options(
        python=given.python or engine.python,
        torch_index=given.torch_index or engine.torch_index,
        disk_mib=engine.install_disk_mib,
    )


main = Script(
    __doc__,
    _body,
    arguments,
    example="scripts/install_engine.py --venv build/engine-cpu",
    bare=lambda given: given.standalone,
)


if __name__ == "__main__":
    sys.exit(main())
