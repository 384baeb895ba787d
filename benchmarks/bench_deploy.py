#!/usr/bin/env python3
"""What a deploy adds to the engines' own start, and what a deploy costs that changes nothing.

Deploys the environment given as argument (default: the tests' own 2P1D) with real engines, and
stops it again. The baseline of the first figure is the engines' start itself, read from the
records: the time of the last server's first 200 on /health.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from timing import HEADER, ROOT, Figure, command_seconds

from hostkit.base.log import table


def main() -> int:
    environment = sys.argv[1] if len(sys.argv) > 1 else "tests/environments/pd.yaml"
    invoke = [sys.executable, "-m", "invoke"]
    words = ["--environment", environment]
    subprocess.run([*invoke, "stop", *words], cwd=ROOT, check=True, capture_output=True)
    began = time.time()
    subprocess.run(["make", "deploy", f"ENVIRONMENT={environment}"], cwd=ROOT, check=True)
    ended = time.time()
    asked = [*invoke, "status", *words, "--json"]
    shown = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    nodes = [node for node in json.loads(shown)["nodes"] if node["role"] != "proxy"]
    healthy = max(server["healthy_at"] for node in nodes for server in node["servers"])
    again = command_seconds(["make", "deploy", f"ENVIRONMENT={environment}"], runs=3)
    subprocess.run([*invoke, "stop", *words], cwd=ROOT, check=True, capture_output=True)
    figures = [
        Figure("until the last /health", healthy - began, None, "baseline: the engines' start"),
        Figure("from there to the end", ended - healthy, 3.0, "overhead of make deploy"),
        Figure("make deploy again", again, 5.0, "changes nothing"),
    ]
    print(table([figure.row() for figure in figures], HEADER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
