#!/usr/bin/env python3
"""Check that omni_placement's file and its pattern are there and made for so many devices.

Runs where a server is about to start, from the folder that it starts in: the file names its pattern
relative to that. Changes nothing. The engine itself ends minutes later, or spreads experts wrongly.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import Optional, Sequence

from hostkit.base import cli

EXAMPLE = "scripts/check_placement.py --file tests/test_config/config_d.yaml --devices 32"
# A pattern is an array of devices x layers x experts, stored as numpy's .npy:
# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 65536
_PATTERN = re.compile(r"""^pattern_path:[ \t]*["']?([^"'#\n]*?)["']?[ \t]*(?:#.*)?$""", re.M)


def pattern_of(text: str) -> Optional[str]:
    """The pattern that a placement file names; None when it names none.

    >>> pattern_of('pattern_path: "../a.npy"  # for 16 devices')
    '../a.npy'
    """
    found = _PATTERN.search(text)
    return found[1] if found and found[1] not in ("", "null", "None", "~") else None


def devices_of(path: Path) -> int:
    """How many devices a pattern is made for. Raises ValueError when it is no pattern."""
    from hostkit.files import regular

    with regular.opened(path) as file:
        start = file.read(8)
        if start[:6] != _MAGIC or len(start) < 8:
            raise ValueError("it is no .npy file")
        size = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
        if size > _LONGEST_HEADER:
            raise ValueError("its header is too long")
        try:
            shape = ast.literal_eval(file.read(size).decode())["shape"]
            devices, _, _ = map(int, shape)
        except (KeyError, SyntaxError, TypeError, ValueError) as error:
            raise ValueError("it is no array of devices x layers x experts") from error
    return devices


def body(options: argparse.Namespace) -> int:
    """Look at the file, then at its pattern."""
    from hostkit.base.errors import InputError
    from hostkit.files import regular

    off = "serve without omni_placement: --set model.placement=false"
    file = Path(options.file)
    try:
        name = pattern_of(regular.text(file))
        pattern = Path(name) if name else None
        found = devices_of(pattern) if pattern else options.devices
    except OSError as error:
        raise InputError(
            f"omni_placement's file cannot be read: {error.strerror}.",
            where=str(Path.cwd() / (error.filename or file)),
            todo=f"copy omni-infer's source there (invoke sync-code), or {off}",
        ) from error
    except ValueError as error:
        raise InputError(
            f"omni_placement's pattern cannot be used: {error}.", where=name or "", todo=off
        ) from error
    if found != options.devices:
        raise InputError(
            f"omni_placement's pattern {name} is made for {found} devices, this instance has"
            f" {options.devices}.",
            where=str(file),
            todo=f"name one for {options.devices} devices in that file (pattern_path), or {off}",
        )
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example=EXAMPLE)
    made.add_argument(
        "--file", required=True, metavar="FILE", help="config_p.yaml or config_d.yaml"
    )
    made.add_argument(
        "--devices", required=True, type=int, metavar="N", help="devices of the whole instance"
    )
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
