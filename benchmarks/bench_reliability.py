#!/usr/bin/env python3
"""What comes of faults on a fleet over real SSH, as a table: state, cause, recovery, lost requests;
and what the truth gate costs there.

Needs root: starts hosts of its own on this machine (tests/kit/fault_stage.py), whose servers and
NPU tools are stand-ins, a real nginx, and requests all the time; does every fault of
tests/kit/faults.py, and looks each time at what status and doctor say. Exit code 1: something was
otherwise than the table has it. PYTHONPATH must name scripts/ and tests/kit/.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Optional, Sequence

import fault_stage
import faults

from hostkit.base import cli, log


def gate(stage: fault_stage.Stage, kind: str) -> str:
    """What invoke verify-serving costs."""
    began = time.monotonic()
    done = stage.run("verify_serving.py", *(["--short"] if kind == "short" else []))
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split("\n")[-2:]).strip()
    return f"verify-serving, {kind}: {seconds:.1f} s: {said}"


def body(options: argparse.Namespace) -> int:
    """All faults."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = [one for one in faults.TABLE if not options.only or options.only in one.name]
    chosen = [one for one in chosen if one.brief or not options.brief]
    found = []
    with fault_stage.stage(options.hosts) as stage:
        if not options.only:
            for kind in ("short", "full"):
                log.say(gate(stage, kind))
        traffic = fault_stage.Traffic(stage.proxy)
        try:
            for batch in stage.batches(chosen):
                found += fault_stage.perform(stage, batch, traffic, log.say)
        finally:
            traffic.end()
            if options.out:
                Path(options.out).write_text(json.dumps([asdict(one) for one in found], indent=1))
    order = [one.name for one in faults.TABLE]
    found.sort(key=lambda one: order.index(one.name))
    print("\n".join(faults.table(found)))
    if options.chinese:
        print("\n".join(faults.table(found, chinese=True)))
    wrong = [f"{one.name}: {problem}" for one in found for problem in one.problems]
    print("\n".join(wrong))
    return 1 if wrong else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Do faults and print the table."""
    made = cli.parser(
        __doc__ or "",
        example="PYTHONPATH=scripts:tests/kit python3 benchmarks/bench_reliability.py",
    )
    made.add_argument("--hosts", type=int, default=24, metavar="N", help="size of the fleet")
    made.add_argument("--only", metavar="WORDS", help="faults with these words in their name")
    made.add_argument("--brief", action="store_true", help="the short form that CI runs")
    made.add_argument("--chinese", action="store_true", help="the table in Chinese too")
    made.add_argument("--out", metavar="FILE", help="the outcomes as JSON")
    return cli.run_main(body, made, argv)


if __name__ == "__main__":
    sys.exit(main())
