#!/usr/bin/env python3
"""Say what a folder of weights is, which engines load it with which flags, and what is wrong.

Runs where the files are, or on what mounts them; reads headers, configuration and description
alone: seconds, whatever the size. Changes nothing. Wrong is: missing or cut shards, an index or a
description that tells of other tensors, scales or offsets that lack, dtypes and shapes that the
configuration contradicts. Numbers are not looked at: verify_weights.py does. Exits with 1 when
something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from omnikit.front.options import add, add_config, add_word, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Look and say."""
    from omnikit.weights.verify import loads

    if options.path:
        folder = Path(options.path)
    else:
        settings = load_config(options).settings
        folder = Path(settings.weights.target or settings.model.path)
    told = loads.check(folder.expanduser().absolute())
    print(json.dumps(told, indent=1) if options.json else loads.as_text(told))
    return 0 if told["ok"] else 1


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    add_word(made, "path", "folder of the weights (default: weights.target, else model.path)")
    add(made, "json")


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/check_checkpoint.py /data/models/DeepSeek-R1-W8A8",
)


if __name__ == "__main__":
    sys.exit(main())
