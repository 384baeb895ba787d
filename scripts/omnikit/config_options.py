"""The options by which every script chooses its configuration."""

from __future__ import annotations

import argparse
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
