#!/usr/bin/env python3
"""How long the commands themselves take: help, task list, plans of growing fleets."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from timing import HEADER, ROOT, Figure, command_seconds

from hostkit.base.log import table


def environment_text(hosts: int) -> str:
    """A fleet with half its hosts prefill and half decode, 16 devices each."""
    half = hosts // 2
    lines = ["profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}", "hosts:"]
    for i in range(hosts):
        lines.append(f"  h{i}: {{address: 10.{i // 250}.{i % 250}.1, user: root}}")
    lines += ["topology:", "  prefill:"]
    lines += [f"    - hosts: [h{i}]" for i in range(half)]
    lines += ["  decode:", "    - hosts:"]
    lines += [f"        - h{i}" for i in range(half, hosts)]
    # Beyond some hundred prefill instances the conventional port ranges would meet.
    lines += ["  proxy: h0", "ports: {offset: {decode: 2000}, proxy: 7900}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    python = sys.executable
    baseline = command_seconds([python, "-c", "pass"])
    figures = [Figure("python -c pass", baseline, None, "baseline: the interpreter itself")]
    for script in sorted((ROOT / "scripts").glob("*.py")):
        seconds = command_seconds([python, str(script), "--help"])
        figures.append(Figure(f"{script.name} --help", seconds, 0.2))
    invoke = str(Path(python).with_name("invoke"))
    figures.append(Figure("invoke --list", command_seconds([invoke, "--list"]), 0.5))
    with tempfile.TemporaryDirectory() as folder:
        for hosts, bar in ((12, None), (48, 1.0), (240, None), (1000, 20.0)):
            path = Path(folder) / f"fleet{hosts}.yaml"
            path.write_text(environment_text(hosts))
            argv = [invoke, "plan", "--environment", str(path)]
            seconds = command_seconds(argv, runs=3)
            note = f"{1000 * seconds / hosts:.1f} ms a host, 16 devices each"
            figures.append(Figure(f"invoke plan, {hosts} hosts", seconds, bar, note))
    print(table([figure.row() for figure in figures], HEADER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
