#!/usr/bin/env python3
"""Edit a downloaded DeepSeek-V3/R1 checkpoint as msmodelslim needs it, before the conversion.

Runs where the checkpoint is. modeling_deepseek.py: flash_attn is commented out, which Ascend does
not have. config.json: quantization_config is removed. Each original stays beside as NAME.orig;
--revert puts it back. Shows the differences; a second run says "unchanged".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omnikit.front.options import add
from omnikit.front.script import Script, always_bare


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--dir", required=True, type=Path, help="folder of the checkpoint")
    made.add_argument("--revert", action="store_true", help="put the originals back")
    add(made, "json", dry_run="show the differences, do nothing")


def _body(options: argparse.Namespace) -> int:
    from omnikit.weights.msmodelslim import edits

    return edits.carry_out(options, edits.before())


main = Script(
    __doc__,
    _body,
    arguments,
    example="scripts/prepare_checkpoint.py --dir /data/models/DeepSeek-R1",
    bare=always_bare,
)


if __name__ == "__main__":
    sys.exit(main())
