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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config
from omnikit.log import say


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(
        str(__doc__),
        example="scripts/run_msmodelslim.py --source /data/models/DeepSeek-R1"
        " --target /data/models/DeepSeek-R1-W8A8",
    )
    add_config_options(made)
    made.add_argument("--source", required=True, type=Path, help="folder of the fp8 checkpoint")
    made.add_argument("--target", required=True, type=Path, help="folder that is to be made")
    made.add_argument(
        "--dry-run", action="store_true", help="show checks, edits and commands, do nothing"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return cli.run_main(_body, made, argv)


def _body(options: argparse.Namespace) -> int:
    from omnikit.weights import msmodelslim_report, msmodelslim_run, msmodelslim_tool

    tool = msmodelslim_tool.of_settings(load_config(options).settings)
    if options.dry_run:
        report = msmodelslim_run.describe(options.source, options.target, tool, say)
    else:
        report = msmodelslim_run.run_msmodelslim(options.source, options.target, tool, say)
    return msmodelslim_report.shown(report, options.source, options.target, options.json)


if __name__ == "__main__":
    sys.exit(main())
