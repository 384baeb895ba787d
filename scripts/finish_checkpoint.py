#!/usr/bin/env python3
"""Edit config.json of what msmodelslim wrote so that it can be served, after the conversion.

Runs where the weights are. architectures becomes ["DeepseekV3ForCausalLM"], and num_hidden_layers
no longer counts the MTP layer (62 becomes 61). The original stays beside as config.json.orig;
--revert puts it back. Shows the differences; a second run says "unchanged".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Optional, Sequence

from omnikit import cli

_LAYERS = "another model: add --layers N, num_hidden_layers of the checkpoint before the conversion"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        str(__doc__), example="scripts/finish_checkpoint.py --dir /data/models/DeepSeek-R1-W8A8"
    )
    made.add_argument("--dir", required=True, type=Path, help="folder with the converted weights")
    made.add_argument(
        "--layers",
        type=cli.positive,
        default=61,
        metavar="N",
        help="layers of the model without MTP (default 61: DeepSeek-V3 and -R1)",
    )
    made.add_argument("--revert", action="store_true", help="put the original back")
    made.add_argument("--dry-run", action="store_true", help="show the differences, do nothing")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(_body, made, argv)


def _body(options: argparse.Namespace) -> int:
    from omnikit.weights import checkpoint_edits, edited_files

    edits = checkpoint_edits.after(options.layers, _LAYERS)
    if not options.revert:
        checkpoint_edits.refuse_unconverted(options.dir)
    planned = edited_files.plan_revert if options.revert else edited_files.plan
    changes = planned(options.dir, edits)
    if not options.dry_run:
        edited_files.apply(changes)
    if options.json:
        print(json.dumps(checkpoint_edits.data(options.dir, changes, would=options.dry_run)))
    else:
        print(checkpoint_edits.told(changes, would=options.dry_run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
