#!/usr/bin/env python3
"""Edit config.json of what msmodelslim wrote so that it can be served, after the conversion.

Runs where the weights are. architectures becomes ["DeepseekV3ForCausalLM"], and num_hidden_layers
no longer counts the MTP layer (62 becomes 61). The original stays beside as config.json.orig;
--revert puts it back. Shows the differences; a second run says "unchanged".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hostkit.base import cli
from omnikit.front.options import add
from omnikit.front.script import Script, always_bare

_LAYERS = "another model: add --layers N, num_hidden_layers of the checkpoint before the conversion"


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    made.add_argument("--dir", required=True, type=Path, help="folder with the converted weights")
    made.add_argument(
        "--layers",
        type=cli.positive,
        default=61,
        metavar="N",
        help="layers of the model without MTP (default 61: DeepSeek-V3 and -R1)",
    )
    made.add_argument("--revert", action="store_true", help="put the original back")
    add(made, "json", dry_run="show the differences, do nothing")


def _body(options: argparse.Namespace) -> int:
    from omnikit.weights.msmodelslim import edits

    wanted = edits.after(options.layers, _LAYERS)
    if not options.revert:
        edits.refuse_unconverted(options.dir)
    return edits.carry_out(options, wanted)


main = Script(
    __doc__,
    _body,
    arguments,
    example="scripts/finish_checkpoint.py --dir /data/models/DeepSeek-R1-W8A8",
    bare=always_bare,
)


if __name__ == "__main__":
    sys.exit(main())
