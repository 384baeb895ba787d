#!/usr/bin/env python3
"""Look at a deployment that failed, is slow or does not answer, and name likely causes.

Runs on the control host, changes nothing. Asks every host for the states, loads and log ends of its
servers, disks, restarts and clock, compares what runs with the configuration, checks the rank table
and sends a request. Each finding has its evidence and what to do, the most certain first; where
nothing is known it says so. With --log it reads a log instead. Exits 0 when nothing is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys

from omnikit.front.options import add, add_config, load_config
from omnikit.front.script import Script


def body(options: argparse.Namespace) -> int:
    """Examine and print."""
    from omnikit.doctor import doctor
    from omnikit.doctor.rules import Limits

    if options.log:
        return _read(options)
    config = load_config(options, going=True)
    wrong = config.settings.doctor
    limits = Limits(
        kv_high=wrong.kv_high,
        quiet_s=wrong.quiet_s,
        look_again_s=wrong.look_again_s,
        disk_free_mib=wrong.disk_free_mib,
        tail_bytes=wrong.tail_kib << 10,
        clock_skew_s=config.settings.checks.clock_skew_s,
    )
    report = doctor.examine(config, limits)
    print(json.dumps(report.data, indent=1) if options.json else report.text)
    return 1 if report.findings else 0


def _read(options: argparse.Namespace) -> int:
    """Known failures in one log file, or in standard input."""
    from pathlib import Path

    from hostkit.base.errors import InputError
    from hostkit.files import regular
    from omnikit.doctor import doctor, rules

    try:
        if options.log == "-":
            text = sys.stdin.read()
        else:
            text = regular.text(Path(options.log), errors="replace", largest=sys.maxsize)
    except OSError as error:
        raise InputError(
            f"the log cannot be read: {error.strerror}.",
            where=options.log,
            todo="name a file, or - for standard input",
        ) from error
    found = rules.merged(doctor.read_log(options.log, text))
    if options.json:
        print(json.dumps([one.__dict__ for one in found], indent=1))
    elif found:
        print(rules.as_text(options.log, found, [], {}))
    else:
        print(f"{options.log}: no known failure")
    return 1 if found else 0


def arguments(made: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    add_config(made)
    made.add_argument("--log", metavar="FILE", help="read this log (- for standard input) instead")
    add(made, json="print the findings as JSON")


main = Script(__doc__, body, arguments, example="python scripts/doctor.py -e 2p1d")


if __name__ == "__main__":
    sys.exit(main())
