#!/usr/bin/env python3
"""Convert DeepSeek-V3/R1 weights from fp8 to W8A8 with Ascend's msmodelslim, as one command.

Runs on an Ascend machine that has CANN, torch-npu and msmodelslim (weights.msmodelslim.*). Checks
all of them first; edits files of --source (originals stay as NAME.orig); writes --target, which
appears when it is complete, with logs and state in TARGET.msmodelslim/. A second run says what is
done and goes on there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hostkit.base.log import say
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--source", required=True, type=Path, help="folder of the fp8 checkpoint")
    made.add_argument("--target", required=True, type=Path, help="folder that is to be made")
    add(made, "json", dry_run="show checks, edits and commands, do nothing")


def _body(options: argparse.Namespace) -> int:
    from omnikit.weights.msmodelslim import run as msmodelslim_run
    from omnikit.weights.msmodelslim import tool as msmodelslim_tool

    tool = msmodelslim_tool.of_settings(load_config(options).settings)
    if options.dry_run:
        report = msmodelslim_run.describe(options.source, options.target, tool, say)
    else:
        report = msmodelslim_run.run_msmodelslim(options.source, options.target, tool, say)
    return msmodelslim_run.shown(report, options.source, options.target, options.json)


main = Script(
    __doc__,
    _body,
    arguments,
    example="scripts/run_msmodelslim.py --source /data/models/DeepSeek-R1"
    " --target /data/models/DeepSeek-R1-W8A8",
)


if __name__ == "__main__":
    sys.exit(main())
