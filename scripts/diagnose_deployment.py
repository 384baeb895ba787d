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
from typing import Optional, Sequence

from omnikit import cli
from omnikit.config_options import add_config_options, load_config


def body(options: argparse.Namespace) -> int:
    """Examine and print."""
    from omnikit import doctor
    from omnikit.doctor_rules import Limits

    if options.log:
        return _read(options)
    config = load_config(options)
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

    from omnikit import doctor, doctor_findings
    from omnikit.errors import InputError

    try:
        if options.log == "-":
            text = sys.stdin.read()
        else:
            text = Path(options.log).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"the log cannot be read: {error.strerror}.",
            where=options.log,
            todo="name a file, or - for standard input",
        ) from error
    found = doctor_findings.merged(doctor.read_log(options.log, text))
    if options.json:
        print(json.dumps([one.__dict__ for one in found], indent=1))
    elif found:
        print(doctor_findings.as_text(options.log, found, [], {}))
    else:
        print(f"{options.log}: no known failure")
    return 1 if found else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line: see the module's docstring."""
    made = cli.parser(__doc__ or "", example="python scripts/diagnose_deployment.py -e 2p1d")
    add_config_options(made)
    made.add_argument("--log", metavar="FILE", help="read this log (- for standard input) instead")
    made.add_argument("--json", action="store_true", help="print the findings as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
