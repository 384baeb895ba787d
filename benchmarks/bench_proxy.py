#!/usr/bin/env python3
"""Measure what the PD proxy costs per request, against the same two calls without it.

Runs anywhere; starts two servers that answer at once and the proxy, on free ports, and ends them.
One client on kept-alive connections takes turns, in random order (who comes after whom counts), in
the same run: the prefill call and the decode call directly ("bare"), one call through the proxy,
and with --against one through that of another state of this toolkit. Settings are those of the
environment local. Writes nothing but a temporary folder. PYTHONPATH must name scripts/, as invoke
bench does.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

from hostkit.base import cli, log, run
from hostkit.base.errors import ActionError
from hostkit.base.health import request, wait_until
from omnikit import proxy
from omnikit.proxy import install

ROOT = Path(__file__).resolve().parents[1]
SERVER = Path(__file__).with_name("proxy_bench_server.py")
START_DEADLINE_S, LOOK_S, TIMEOUT_S = 30, 0.02, 30
PATH = "/v1/completions"


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser(
        __doc__ or "", example="PYTHONPATH=scripts python3 benchmarks/bench_proxy.py --json"
    )
    made.add_argument("--kind", choices=sorted(proxy.KINDS), default="nginx-lua")
    made.add_argument("--venv", type=Path, metavar="DIR", help="where vllm-router is")
    made.add_argument("--requests", type=int, default=1000, help="pairs (default: %(default)s)")
    made.add_argument(
        "--prompt", type=int, default=2000, help="characters of the prompt (default: %(default)s)"
    )
    made.add_argument(
        "--against", type=Path, metavar="DIR", help="another checkout, whose proxy takes turns too"
    )
    made.add_argument("--launch", metavar="JSON", help=argparse.SUPPRESS)  # what --against calls
    made.add_argument("--json", action="store_true", help="the figures as one JSON object")
    return made


@contextlib.contextmanager
def process(
    words: Sequence[Any], output: Path, env: Optional[dict[str, str]] = None
) -> Iterator[Callable[[], bool]]:
    """A process of ours while this lasts; what is given tells whether it still runs."""
    with output.open("wb") as file:
        child = run.start(words, output=file, env=env)
    try:
        yield lambda: child.poll() is None
    finally:
        run.end_group(child.pid, signal.SIGTERM)
        child.wait()


def wait(ready: Callable[[], bool], alive: Callable[[], bool], output: Path) -> None:
    """Until it is ready; an error with its own words when it died or takes too long."""
    wait_until(lambda: ready() or not alive(), START_DEADLINE_S, LOOK_S)
    if not (alive() and ready()):
        raise ActionError(f"it did not start: {output.read_text(encoding='utf-8')[-2000:]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spec(given: argparse.Namespace, folder: Path, ports: dict[str, int]) -> proxy.ProxySpec:
    """The proxy as the environment local has it, but on free ports and before our servers."""
    from omnikit.config import config

    found = install.find()
    settings = {
        **config.load("local", environ={}).settings.proxy.model_dump(),
        "nginx": found.path if found else None,
        "modules_dir": found.modules_dir if found else None,
        "venv": str(given.venv.absolute()) if given.venv else None,
        "router_metrics_port": free_port(),
    }
    address = {role: (("127.0.0.1", port),) for role, port in ports.items()}
    return proxy.ProxySpec(
        kind=given.kind,
        listen_host="127.0.0.1",
        listen_port=free_port(),
        prefill=address["prefill"],
        decode=address["decode"],
        run_dir=str(folder),
        log_dir=str(folder),
        settings=settings,
    )


def serve(stack: contextlib.ExitStack, words: Sequence[str], tree: Path, folder: Path) -> int:
    """Start a proxy by the code of a checkout, and wait for it; its port."""
    output = folder.with_name(f"{folder.name}.output")
    folder.mkdir()
    alive = stack.enter_context(process(words, output, {"PYTHONPATH": str(tree / "scripts")}))
    told = folder / "port"
    wait(lambda: told.exists() and told.read_text().endswith("\n"), alive, output)
    port = int(told.read_text())
    address = f"http://127.0.0.1:{port}{(folder / 'health').read_text()}"
    wait(lambda: request(address, timeout_s=1).status == 200, alive, output)
    return port


def call(client: http.client.HTTPConnection, body: bytes) -> None:
    """One request on a connection that is kept."""
    client.request("POST", PATH, body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise ActionError(f"status {answer.status}: {text[:300].decode('utf-8', 'replace')}")


def measure(given: argparse.Namespace, ports: dict[str, int]) -> dict[str, list[float]]:
    """Milliseconds per request, in turns. The first tenth only warms up."""
    body = json.dumps({"model": "m", "prompt": "x" * given.prompt, "max_tokens": 16}).encode()
    clients = {
        name: http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        for name, port in ports.items()
    }
    turns: dict[str, tuple[str, ...]] = {"bare": ("prefill", "decode")}
    turns.update({name: (name,) for name in ports if name not in turns["bare"]})
    taken: dict[str, list[float]] = {name: [] for name in turns}
    warm_up, chance = given.requests // 10, random.Random(1)
    for i in range(given.requests + warm_up):
        for name, parts in chance.sample(list(turns.items()), len(turns)):
            start = time.perf_counter()
            for part in parts:
                call(clients[part], body)
            if i >= warm_up:
                taken[name].append(1000 * (time.perf_counter() - start))
    return taken


def figures(taken: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """p50 and p99 of both, and of what the proxy adds."""
    rows: dict[str, dict[str, float]] = {}
    for name, values in taken.items():
        cuts = statistics.quantiles(values, n=100)
        rows[name] = {"p50_ms": cuts[49], "p99_ms": cuts[98]}
    for name in [one for one in taken if one != "bare"]:
        over = "overhead" if name == "proxy" else f"overhead {name}"
        rows[over] = {key: rows[name][key] - rows["bare"][key] for key in rows["bare"]}
    return {name: {key: round(v, 3) for key, v in row.items()} for name, row in rows.items()}


def launch(given: argparse.Namespace, folder: Path, ports: dict[str, int]) -> tuple[int, list[str]]:
    """Write a proxy's files; its port, and its command."""
    one = spec(given, folder, ports)
    folder.mkdir(exist_ok=True)
    for name, text in proxy.files(one, "benchmarks/bench_proxy.py").items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "health").write_text(proxy.health_path(one))
    return one.listen_port, [str(word) for word in proxy.command(one)]


def body(given: argparse.Namespace) -> int:
    """Start all, measure, print."""
    if given.launch:
        told = json.loads(given.launch)
        port, words = launch(given, Path(told["folder"]), told["ports"])
        (Path(told["folder"]) / "port").write_text(f"{port}\n")
        os.execvp(words[0], words)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports: dict[str, int] = {}
        for role in ("prefill", "decode"):
            output = folder / f"{role}.port"
            alive = stack.enter_context(process([sys.executable, SERVER, role], output))
            wait(lambda output=output: output.read_bytes().endswith(b"\n"), alive, output)  # type: ignore[misc]
            ports[role] = int(output.read_text(encoding="utf-8"))
        found = dict[str, int]()
        for name, tree in {"proxy": ROOT, "against": given.against}.items():
            if tree is not None:
                told = json.dumps({"folder": str(folder / name), "ports": ports})
                words = [sys.executable, __file__, "--kind", given.kind, "--launch", told]
                words += ["--venv", str(given.venv.absolute())] if given.venv else []
                found[name] = serve(stack, words, tree.absolute(), folder / name)
        log.say(f"{given.requests} requests each way, {given.kind}, prompt of {given.prompt} bytes")
        rows = figures(measure(given, {**ports, **found}))
    if given.json:
        print(json.dumps({"kind": given.kind, "requests": given.requests, **rows}))
    else:
        lines = [[name, f"{r['p50_ms']:.2f}", f"{r['p99_ms']:.2f}"] for name, r in rows.items()]
        print(log.table(lines, ["per request", "p50 ms", "p99 ms"]))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    return cli.run_main(body, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
