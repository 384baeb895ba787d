"""Options that many scripts have: each is declared here once."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnikit.config.config import Config

_FLAG: dict[str, Any] = {"action": "store_true"}
_LIST: dict[str, Any] = {"action": "append", "default": []}
# Name -> what argparse is told of it; a script may give another help.
_SHARED: dict[str, dict[str, Any]] = {
    "host": {**_LIST, "metavar": "NAME", "help": "only this host of the environment (repeatable)"},
    "instance": {
        **_LIST,
        "metavar": "NAME",
        "help": "only this instance, for example p0 (repeatable)",
    },
    "replace": {**_FLAG, "help": "also what this toolkit did not make"},
    "yes": {**_FLAG, "help": "do not ask before something that runs is replaced"},
    "at-once": {
        **_FLAG,
        "help": "replace all at the same time, even where that can be done one by one",
    },
    "dry-run": {**_FLAG, "help": "show what would be done, do nothing"},
    "json": {**_FLAG, "help": "print the result as JSON"},
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORT = {"host": ["-H"]}


def add(made: argparse.ArgumentParser, *names: str, **helps: str) -> None:
    """Add shared options by their names, or by keyword with a help text of the script's own."""
    for name, text in {**dict.fromkeys(names, ""), **helps}.items():
        option = name.replace("_", "-")
        told = _SHARED[option]
        made.add_argument(
            f"--{option}", *_SHORT.get(option, []), **{**told, "help": text or told["help"]}
        )


def add_word(made: argparse.ArgumentParser, name: str, help: str) -> None:
    """Add an option that may also be given as a word of its own: IMAGE, or --image IMAGE."""
    shown = name.upper()
    made.add_argument(f"--{name}", metavar=shown, help=help)
    made.add_argument(
        name, nargs="?", metavar=shown, default=argparse.SUPPRESS, help=f"the same as --{name}"
    )


def add_config(made: argparse.ArgumentParser, environment: str = "") -> None:
    """Add --environment, --config and --set, by which every script chooses its configuration.

    environment: what is meant where none is chosen.
    """
    otherwise = environment or "$OMNIKIT_ENVIRONMENT, else local"
    group = made.add_argument_group("configuration")
    group.add_argument(
        "-e",
        "--environment",
        metavar="NAME",
        default=environment or None,
        help=f"name in configs/environments, or a path (default: {otherwise})",
    )
    group.add_argument(
        "--config",
        **_LIST,
        metavar="FILE",
        help="site file with settings on top of the environment's (repeatable)",
    )
    group.add_argument(
        "--set",
        **_LIST,
        metavar="KEY=VALUE",
        help="a setting on top of everything, for example ports.proxy=7001 (repeatable)",
    )


def seconds(text: str) -> float:
    """A time like 90s, 30m, 2h or 1d in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write for example 30m, 2h or 1d")
    return float(found.group(1)) * _UNITS[found.group(2)]


def since(text: str) -> str:
    """A time, as it was given."""
    seconds(text)
    return text


def load_config(given: argparse.Namespace, *, going: bool = False) -> Config:
    """The configuration that the options choose. Raises InputError.

    going: to the hosts, which therefore have to be real ones; a dry run may show an example.
    """
    from omnikit.config import config  # late: --help must not pay for it

    made = config.load(given.environment, given.config, given.set)
    if going and not getattr(given, "dry_run", False):
        made.refuse_examples()
    return made


def chosen(given: argparse.Namespace) -> list[str]:
    """The same options as words of a command line that may run in another folder."""
    words = []
    environment = given.environment or os.environ.get("OMNIKIT_ENVIRONMENT")
    if environment:
        path = Path(environment)
        place = str(path.absolute()) if path.is_file() else environment
        words.append(f"--environment={place}")
    words += [f"--config={Path(file).expanduser().absolute()}" for file in given.config]
    return words + [f"--set={assignment}" for assignment in given.set]
