#!/usr/bin/env python3
"""Record what chosen servers do in a few engine steps, and say where their time goes.

Runs on the control host. Restarts the chosen instances with the engine's profiler on (after a
question; prefill instances one after the other, without a failed request where the proxy can do
that), sends a short load, fetches the traces of all workers, and restarts the instances as they
were, also after a failure or Ctrl-C. Makes a folder with traces/ (for https://ui.perfetto.dev,
TensorBoard or MindStudio Insight), summary.json and summary.svg. Exits 1 when a trace is missing
or damaged.

Communication and gaps are shares of the steps' time: a gap is time without any operator.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def body(options: argparse.Namespace) -> int:
    """Check, record, print."""
    from omnikit import profile_choice, profile_run, profile_summary
    from omnikit.layers import shown_path
    from omnikit.log import say

    wanted = profile_choice.Options(
        options.role, options.instance, options.steps, options.token_threshold
    )
    now = load_config(options)
    on, nodes = profile_choice.profiled(
        options.environment, options.config, options.set, now, wanted
    )
    work = profile_run.Work(now, on, nodes)
    if options.dry_run:
        would = profile_run.dry_run(work, options.out)
        print(
            json.dumps(would, indent=1) if options.json else "\n".join(profile_run.as_lines(would))
        )
        return 0

    def show(folder: Path, summary: dict[str, Any]) -> None:
        if options.json:
            print(json.dumps({"folder": str(folder), **summary}, indent=1), flush=True)
        else:
            text = profile_summary.as_text(summary)
            print(f"{text}\n\nall of it: {shown_path(folder)}", flush=True)

    summary = profile_run.profile(work, options.out, options.yes, show)
    if summary["faults"]:
        say(f"error: {len(summary['faults'])} faults; the profile is not complete")
        say("  What to do: read them above; more requests: --set profiling.requests=N")
    return 1 if summary["faults"] else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    example = "python scripts/profile_servers.py -e 2p1d --role prefill --instance p0 --steps 10"
    made = cli.parser(__doc__ or "", example=example)
    add_config_options(made)
    made.add_argument(
        "--role",
        choices=("prefill", "decode", "colocated", "all"),
        default="all",
        help="only instances of this role (default: all)",
    )
    made.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, for example p0 (repeatable)",
    )
    made.add_argument(
        "--steps", type=positive, metavar="N", help="engine steps (default: profiling.steps)"
    )
    made.add_argument(
        "--token-threshold",
        type=positive,
        metavar="N",
        help="omni-infer: begin with a step of so many tokens (default: profiling.token_threshold)",
    )
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="where the folder is made (default: see README)"
    )
    made.add_argument("--yes", action="store_true", help="do not ask before servers are restarted")
    made.add_argument("--dry-run", action="store_true", help="show what would be done, do nothing")
    made.add_argument("--json", action="store_true", help="print the summary as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
