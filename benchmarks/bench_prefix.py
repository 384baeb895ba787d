#!/usr/bin/env python3
"""What proxy.prefill_balance: prefix brings, on real CPU engines: two prefill servers, one decode.

Several conversations go on at the same time: each turn asks again with all that was said, behind a
long beginning of its own. In turns in the same run the proxy gives requests to whom has the least
work, and to whom computed their beginning before; each time the prompts are new to all servers.
PREFIX_PORT (22000, and the 800 above) is a variable. Takes some minutes. PYTHONPATH must name
scripts/ and tests/kit/.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pd_faults
import requests
from timing import ROOT

from hostkit.base import log
from hostkit.base.errors import ActionError
from hostkit.base.health import metric

PORT = int(os.environ.get("PREFIX_PORT", "22000"))
CONVERSATIONS, TURNS, AT_ONCE, ROUNDS = 12, 6, 3, 3
WAYS = ("least_work", "prefix")
WORDS = ("harbour", "seven", "bridge", "yellow", "winter", "copper", "letter", "garden")
_SITE = """\
profile: {{engine: cpu, model: tiny-qwen2}}
paths: {{work_dir: {work}}}
hosts: {{local: {{address: 127.0.0.1, connection: local}}}}
server: {{env: {{UCX_NET_DEVICES: lo}}}}
roles:
  prefill: {{server: {{args: {{no-enable-prefix-caching: null, enable-prefix-caching: true}}}}}}
topology:
  prefill: [{{hosts: [local]}}, {{hosts: [local]}}]
  decode: [{{hosts: [local]}}]
  proxy: local
ports: {{api_base: {port}, master_base: {master}, proxy: {proxy}, kv_side_channel: {kv}, zmq: {zmq},
  ephemeral_low: 65536}}
proxy: {{listen_host: 127.0.0.1}}
"""


@dataclass
class Taken:
    """first_ms: to the first byte of each answer. queries, hits: tokens of prompts on prefill."""

    first_ms: list[float] = field(default_factory=list)
    queries: float = 0.0
    hits: float = 0.0


def first_byte_ms(url: str, prompt: str) -> float:
    """One streamed request, read to its end."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True}
    began = time.perf_counter()
    with requests.post(f"{url}/v1/completions", json=body, stream=True, timeout=120) as answer:
        if answer.status_code != 200:
            raise ActionError(f"status {answer.status_code}: {answer.text[:300]}")
        pieces = answer.iter_content(None)
        next(pieces)
        took = 1000 * (time.perf_counter() - began)
        for _ in pieces:
            continue
    return took


def conversation(url: str, seed: int) -> list[float]:
    """All turns of one, each behind all before it."""
    chance = random.Random(seed)
    text = f"{secrets.token_hex(8)} " + " ".join(chance.choices(WORDS, k=300))
    took = []
    for turn in range(TURNS):
        text += f" turn {turn}: " + " ".join(chance.choices(WORDS, k=30))
        took.append(first_byte_ms(url, text))
    return took


def counted() -> tuple[float, float]:
    """Tokens of prompts that the prefill servers were asked for, and had in their caches."""
    texts = [
        requests.get(f"http://127.0.0.1:{PORT + n}/metrics", timeout=30).text for n in range(2)
    ]
    names = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")
    found = [sum(metric(text, name) or 0.0 for text in texts) for name in names]
    return found[0], found[1]


def main() -> int:
    """Deploy, ask in turns, print, stop."""
    ports = {"port": PORT, "master": PORT + 200, "proxy": PORT + 700, "kv": PORT + 400}
    with tempfile.TemporaryDirectory(prefix="omnikit-prefix-") as name:
        path, work = Path(name) / "prefix.yaml", Path(name) / "work"
        path.write_text(_SITE.format(work=work, zmq=PORT + 600, **ports))
        site = pd_faults.Site(str(path), work, [], f"http://127.0.0.1:{ports['proxy']}")
        taken = {way: Taken() for way in WAYS}
        try:
            site.run("deploy", "--yes")
            for number in range(ROUNDS * len(WAYS)):
                way = WAYS[number % len(WAYS)]
                site.settings["proxy.prefill_balance"] = way
                site.run("reload_proxy")
                before = counted()
                with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                    asked = [pool.submit(conversation, site.url, n) for n in range(CONVERSATIONS)]
                    for one in asked:
                        taken[way].first_ms += one.result()[1:]  # the first turn is new to all
                after = counted()
                taken[way].queries += after[0] - before[0]
                taken[way].hits += after[1] - before[1]
        finally:
            subprocess.run(site.argv("clean_up", "--yes", "--logs"), cwd=ROOT, check=False)
    rows = []
    for way, one in taken.items():
        cuts = statistics.quantiles(one.first_ms, n=20)
        share = one.hits / one.queries if one.queries else 0.0
        rows.append([way, f"{cuts[9]:.0f}", f"{cuts[18]:.0f}", f"{share:.0%}"])
    print(log.table(rows, ["prefill_balance", "TTFT p50 ms", "p95 ms", "of the prompts cached"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
