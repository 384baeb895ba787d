#!/usr/bin/env python3
"""What faults cost: requests lost and wrong answers of a PD deployment under load, on CPU engines.

Deploys two prefill and two decode servers with their proxy, and before them one server that does
all itself, whose answers are right; kills, hangs, rolls and reloads them (tests/kit/pd_faults.py)
while requests come at a steady rate. STEADY_REQUESTS (10000), STEADY_RATE (a second; 5),
STEADY_SEED (1), STEADY_FAULTS (only those with these words) and STEADY_PORT (21000, and the 800
above) are variables. Takes half an hour, and a machine that does nothing else. Exit status 1: an
answer was wrong, or a request lost. PYTHONPATH must name scripts/ and tests/kit/.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pd_faults
import steady_load
from timing import ROOT

REQUESTS = int(os.environ.get("STEADY_REQUESTS", "10000"))
RATE = float(os.environ.get("STEADY_RATE", "5"))
SEED = int(os.environ.get("STEADY_SEED", "1"))
FAULTS = [one for one in pd_faults.FAULTS if os.environ.get("STEADY_FAULTS", "") in one]
PORT = int(os.environ.get("STEADY_PORT", "21000"))
_HEAD = """\
profile: {{engine: cpu, model: tiny-qwen2}}
paths: {{work_dir: {work}}}
hosts: {{local: {{address: 127.0.0.1, connection: local}}}}
server: {{env: {{UCX_NET_DEVICES: lo}}}}
"""
_PD = """\
topology:
  prefill: [{{hosts: [local]}}, {{hosts: [local]}}]
  decode: [{{hosts: [local]}}, {{hosts: [local]}}]
  proxy: local
ports: {{api_base: {port}, master_base: {master}, proxy: {proxy}, kv_side_channel: {kv}, zmq: {zmq},
  ephemeral_low: 65536}}
proxy: {{listen_host: 127.0.0.1}}
restart: {{policy: on-failure, delay_s: 0.5, settled_s: 5, limit: 50}}
"""
_ALONE = """\
topology: {{colocated: [{{hosts: [local], api_port: {alone}}}]}}
ports: {{ephemeral_low: 65536}}
"""


def main() -> int:
    """Deploy, run, print, stop."""
    ports = {"port": PORT, "master": PORT + 200, "proxy": PORT + 700, "kv": PORT + 400}
    ports |= {"zmq": PORT + 600, "alone": PORT + 800}
    with tempfile.TemporaryDirectory(prefix="omnikit-steady-") as name:
        folder = Path(name)
        sites = []
        for kind, text in (("alone", _ALONE), ("2p2d", _PD)):
            path, work = folder / f"{kind}.yaml", folder / f"{kind}-work"
            path.write_text((_HEAD + text).format(work=work, **ports))
            url = f"http://127.0.0.1:{ports['alone' if kind == 'alone' else 'proxy']}"
            sites.append(pd_faults.Site(str(path), work, [], url))
        alone, site = sites
        try:
            alone.run("deploy", "--yes")
            shapes = steady_load.shapes()
            right = pd_faults.right_answers(alone.url, folder, shapes)
            alone.run("stop")
            site.run("deploy", "--yes")
            found = pd_faults.run(
                site, folder, right, shapes, FAULTS, REQUESTS, RATE, SEED,
                lambda line: print(line, file=sys.stderr, flush=True),
            )  # fmt: skip
        finally:
            for one in sites:
                subprocess.run(one.argv("clean_up", "--yes", "--logs"), cwd=ROOT, check=False)
    print("\n".join([*found.table(), *found.odd, *found.mixed]))
    return int(not set(found.verdicts) <= set(pd_faults.ALLOWED) or bool(found.mixed))


if __name__ == "__main__":
    sys.exit(main())
