#!/usr/bin/env python3
"""Write a report of an environment as one HTML file: topology, state, timeline, settings, and more.

Runs on the control host and asks the hosts how their servers are; with --check it looks at them as
check-env does. Changes nothing but the file, which needs no network and has no secrets. A host that
cannot be reached is named in the report, which is written all the same.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Gather, write, and say where it is."""
    from hostkit.files import regular
    from omnikit.config.layers import PROJECT, shown_path

    config = load_config(options, going=options.check)
    usual = PROJECT / "build" / "reports" / f"{config.environment}.html"
    # Before any host is asked: a mistake here would come out minutes later.
    out = regular.to_write(str(usual) if options.out is None else options.out, "--out")
    if options.dry_run:
        from omnikit.topology.topology import make_plan

        hosts = ", ".join(host.name for host in make_plan(config).hosts)
        print(f"would ask {hosts} for the state of the servers, if deployed from here")
        if options.check:
            print(f"would check {hosts} as invoke check-env does")
        print("would print the data" if options.json else f"would write {shown_path(out)}")
        return 0

    from omnikit.report import data as report_data
    from omnikit.report import page
    from omnikit.report import words as report_notes
    from omnikit.report.words import Words

    data = report_data.collect(config, options.check)
    notes = [report_notes.said(note, Words("en")) for note in data["notes"]]
    if options.json:
        print(json.dumps({**data, "notes": notes}, indent=1))
        if options.out is None:
            return 0
    text = page.page(data, options.language)
    page.write(out, text)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not options.json:
        size = len(text.encode()) / 1024
        print(f"report of {config.environment}: {shown_path(out)} ({size:.0f} KiB)")
    return 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--out", metavar="FILE", help="the file (default build/reports/NAME.html)")
    made.add_argument("--check", action="store_true", help="check all hosts now, as check-env does")
    made.add_argument("--language", choices=["en", "zh"], default="en", help="of headings (en)")
    add(made, "dry-run", json="print the data as JSON; a file only with --out")


main = Script(__doc__, body, arguments, example="python scripts/report.py -e 2p1d --out 2p1d.html")


if __name__ == "__main__":
    sys.exit(main())
