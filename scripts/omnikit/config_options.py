"""The options by which every script chooses its configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnikit.config import Config


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add --environment, --config and --set."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "-e",
        "--environment",
        metavar="NAME",
        help="name in configs/environments, or a path (default: $OMNIKIT_ENVIRONMENT, else local)",
    )
    group.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="site file with settings on top of the environment's (may be repeated)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting on top of everything, for example ports.proxy=7001 (may be repeated)",
    )


def load_config(options: argparse.Namespace) -> Config:
    """The configuration that the options choose. Raises InputError."""
    from omnikit import config  # late: --help must not pay for it

    return config.load(options.environment, options.config, options.set)


def chosen(options: argparse.Namespace) -> list[str]:
    """The same options as words of a command line that may run in another folder."""
    words = []
    environment = options.environment or os.environ.get("OMNIKIT_ENVIRONMENT")
    if environment:
        path = Path(environment)
        given = str(path.absolute()) if path.is_file() else environment
        words.append(f"--environment={given}")
    words += [f"--config={Path(file).expanduser().absolute()}" for file in options.config]
    return words + [f"--set={assignment}" for assignment in options.set]
