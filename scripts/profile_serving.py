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
from typing import Any

from hostkit.base import cli
from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Check, record, print."""
    from hostkit.base.log import say
    from omnikit.config.layers import shown_path
    from omnikit.profile import recording
    from omnikit.profile import summary as profile_summary

    wanted = recording.Options(
        options.role, options.instance, options.steps, options.token_threshold
    )
    now = load_config(options, going=True)
    on, nodes = recording.profiled(options.environment, options.config, options.set, now, wanted)
    work = recording.Work(now, on, nodes)
    if options.dry_run:
        would = recording.dry_run(work, options.out)
        print(json.dumps(would, indent=1) if options.json else "\n".join(recording.as_lines(would)))
        return 0

    def show(folder: Path, summary: dict[str, Any]) -> None:
        if options.json:
            print(json.dumps({"folder": str(folder), **summary}, indent=1), flush=True)
        else:
            text = profile_summary.as_text(summary)
            print(f"{text}\n\nall of it: {shown_path(folder)}", flush=True)

    summary = recording.profile(work, options.out, options.yes, show)
    if summary["faults"]:
        say(f"error: {len(summary['faults'])} faults; the profile is not complete")
        say("  What to do: read them above; more requests: --set profiling.requests=N")
    return 1 if summary["faults"] else 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument(
        "--role",
        choices=("prefill", "decode", "colocated", "all"),
        default="all",
        help="only instances of this role (default: all)",
    )
    add(made, "instance")
    made.add_argument(
        "--steps", type=cli.positive, metavar="N", help="engine steps (default: profiling.steps)"
    )
    made.add_argument(
        "--token-threshold",
        type=cli.positive,
        metavar="N",
        help="omni-infer: begin with a step of so many tokens (default: profiling.token_threshold)",
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the folder is made (default: build/control/NAME/profiles)",
    )
    add(
        made,
        "dry-run",
        yes="do not ask before servers are restarted",
        json="print the summary as JSON",
    )


main = Script(
    __doc__,
    body,
    arguments,
    example="python scripts/profile_serving.py -e 2p1d --role prefill --instance p0 --steps 10",
)


if __name__ == "__main__":
    sys.exit(main())
