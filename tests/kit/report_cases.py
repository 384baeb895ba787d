"""Environments that have been deployed, measured and looked at, for tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timeline_cases import BEGAN

from omnikit.config import config as config_config
from omnikit.config.config import Config
from omnikit.deploy import status
from omnikit.plan.types import Plan
from omnikit.report import data
from omnikit.topology.topology import make_plan

HOSTILE = '<script>alert("x")</script>&\'"><img src=x onerror=alert(1)>'
# Every module that asks where an environment's files are.
MODULES = (
    *("runs.releases", "checks.report", "timeline.records", "report.data"),
    *("prepare.ranktables", "config.layers"),
)
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 150">'
    '<path d="M10 140 L100 90 L290 20" stroke="#1f77b4" fill="none" stroke-width="3"/></svg>'
)


def redirect(monkeypatch: Any, folder: Path) -> None:
    """Have all that reports read in a folder of the test's own."""
    import importlib

    for name in MODULES:
        module = importlib.import_module(f"omnikit.{name}")
        monkeypatch.setattr(module, "control_folder", lambda environment: folder / environment)
    log_errors = data.log_errors
    monkeypatch.setattr(
        data, "log_errors", lambda name, notes: log_errors(name, notes, folder / "logs")
    )


def collected(monkeypatch: Any, folder: Path, environment: str) -> dict[str, Any]:
    """The data of a report of a shipped environment that has everything."""
    redirect(monkeypatch, folder)
    loaded = config_config.load(environment, environ={})
    fill(loaded, folder)
    return data.collect(loaded, False)


def serving(monkeypatch: Any, mixed: bool = False) -> None:
    """Have all servers of every environment ready; mixed: half of the nodes in other states."""

    def collect(config: Config) -> dict[str, Any]:
        plan = make_plan(config)
        nodes = []
        for number, node in enumerate(plan.nodes):
            state = ("ready", "ready", "starting", "failed", "ready", "unreachable")[number % 6]
            state = state if mixed else "ready"
            about = {"node": node.name, "role": node.role, "host": node.host, "state": state}
            if state == "unreachable":
                reason = f"host {node.host}: {node.address} does not answer."
                nodes.append({**about, "servers": [], "reason": reason})
                continue
            figures = {"uptime_s": 12345, "running": 3, "waiting": 0, "kv_usage": 0.1234}
            servers = [
                {"name": one.name, "port": one.api_port, "state": state, **figures}
                for one in node.servers
            ]
            nodes.append({**about, "servers": servers})
        if plan.proxy:
            about = {"node": plan.proxy.name, "role": "proxy", "host": plan.proxy.host}
            server = {"name": plan.proxy.name, "port": plan.proxy.port, "uptime_s": 99}
            nodes.append({**about, "state": "ready", "servers": [{**server, "state": "ready"}]})
        done = None if mixed else {"passed": True, "found": "' Paris' in 0.2 s"}
        about = {"environment": plan.environment, "asked": True, "url": "http://x"}
        return {**about, "ok": not mixed, "nodes": nodes, "completion": done}

    monkeypatch.setattr(status, "collect", collect)


def fill(config: Config, folder: Path, hostile: str = "") -> None:
    """All that a report can show of an environment. hostile: text put wherever text is free."""
    plan = make_plan(config)
    control = folder / config.environment
    for name, text in {
        "timelines/20261124T000640Z.jsonl": _timeline(plan, hostile),
        "audit.jsonl": _audit(hostile),
        "releases/3/about.json": _release(plan, hostile),
        "releases/3/files.json": "{}",
        f"releases/3/{plan.environment}.yaml": "",
        "checks.json": _checks(plan, hostile),
        "benchmarks/2026-11-24_00-20-00/result.json": _benchmark(hostile),
        "benchmarks/2026-11-24_00-20-00/latency.svg": PICTURE,
        "benchmarks/vllm.json": _vllm(hostile),
        "profiles/2026-11-24_00-30-00/summary.json": _profile(hostile),
    }.items():
        _put(control / name, text)
    _put(
        folder / "logs" / f"{config.environment}-20261124T001000Z" / "index.json",
        _logs(plan, hostile),
    )


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _lines(entries: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in entries)


def _timeline(plan: Plan, hostile: str) -> str:
    hosts = [host.name for host in plan.hosts]
    made = [
        {"kind": "command", "time": BEGAN, "what": "deploy", "owner": f"ann@bastion:/opt{hostile}"}
    ]

    def add(step: str, host: str, start: float, end: float, result: str = "ok") -> None:
        times = {"start": BEGAN + start, "end": BEGAN + end}
        made.append(
            {
                "kind": "span",
                "time": BEGAN + end,
                "step": step,
                "host": host,
                **times,
                "result": result,
            }
        )

    add(f"set up{hostile}", "here", 0, 1.2)
    add("rank tables", "here", 1.2, 9)
    for number, host in enumerate(hosts):
        add("Ship the archive", host, 10, 12 + number * 0.1, "changed")
        add("Compare with what runs", host, 16, 17.5)
        add("Start the containers", host, 19, 31 + number % 5, "changed")
        add("Take the lock", host, 37, 37.6)
        add("Start the servers", host, 38, 40 + number % 3, "changed")
        add("Wait for the servers", host, 44, 190 + (number * 37) % 90)
    for node in plan.nodes:
        end = 189 + (hosts.index(node.host) * 37) % 90
        times = {"start": BEGAN + 39, "end": BEGAN + end}
        engine = {"kind": "engine", "time": BEGAN + end, "node": node.name, "host": node.host}
        made.append({**engine, **times, "result": "ready"})
    add("Start the proxy", hosts[0], 281, 284, "changed")
    add("Write it down and unlock", hosts[0], 284, 285)
    add("real requests", "here", 286, 290)
    made.append({"kind": "result", "time": BEGAN + 290, "ready": True})
    return _lines(made)


def _audit(hostile: str) -> str:
    one = {"time": "2026-11-24T00:11:30Z", "owner": "ann@bastion:/opt/kit", "what": "deploy"}
    bad = {**one, "time": "2026-11-23T22:00:00Z", "result": f"failed: d0 died {hostile}"}
    return _lines([bad, {**one, "result": "ok"}])


def _release(plan: Plan, hostile: str) -> str:
    about = {
        "time": "2026-11-24T00:11:30Z",
        "owner": f"ann@bastion:/opt{hostile}",
        "images": {f"registry.example/omni-infer:v0.4.1{hostile}": "sha256:" + "3dc58074" * 8},
        "source": {"revision": "0123abcd", "dirty": True},
        "changed": {node.name: "start" for node in plan.nodes[:4]},
        "note": "",
    }
    return json.dumps(about)


def _checks(plan: Plan, hostile: str) -> str:
    ok = {"id": "a", "title": "devices", "state": "ok", "required": True, "found": "16"}
    ok.update(needed="16", todo="")
    bad = {**ok, "id": "b", "title": "free disk", "state": "failed", "found": f"3 GiB {hostile}"}
    bad.update(needed="20 GiB", todo="free some: du -xh / | sort -h | tail")
    warning = {**bad, "id": "c", "title": "firmware", "state": "warning", "found": "7.1.0.5"}
    made = {}
    for number, host in enumerate(plan.hosts):
        own = [ok] * 24 + ([warning] if number % 3 == 0 else []) + ([bad] if number == 1 else [])
        facts = {"driver_version": "24.1.rc3" if number else "24.1.rc2", "cann_version": "8.2.RC1"}
        made[host.name] = {"time": "2026-11-24T00:00:00Z", "checks": own, "facts": facts}
    return json.dumps(made)


def _benchmark(hostile: str) -> str:
    def run(concurrency: int) -> dict[str, Any]:
        times = {"p50": 80.5 * concurrency, "p99": 199.25 * concurrency}
        return {
            "concurrency": concurrency,
            "rate": None,
            "completed": 99,
            "failed": 1,
            "requests_per_s": 3.25 * concurrency**0.5,
            "output_tokens_per_s": 812.4,
            **{f"{metric}_ms": times for metric in ("ttft", "tpot", "e2el")},
        }

    about = {"name": f"evening {hostile}", "model": "deepseek", "began": "2026-11-24 00:20:00"}
    return json.dumps({**about, "cause": None, "runs": [run(1), run(8), run(32)]})


def _vllm(hostile: str) -> str:
    return json.dumps(
        {
            "date": "20261123-101500",
            "model_id": f"deepseek{hostile}",
            "num_prompts": 100,
            "completed": 100,
            "request_rate": "inf",
            "max_concurrency": None,
            "request_throughput": 12.5,
            "output_throughput": 1600.0,
            "median_ttft_ms": 310.0,
            "p99_ttft_ms": 900.0,
            "median_tpot_ms": 21.0,
            "p99_tpot_ms": 44.0,
        }
    )


def _profile(hostile: str) -> str:
    operators = [
        *({"name": f"MatMul{hostile}", "calls": 120, "self_ms": 8.2, "share": 0.82},),
        *({"name": "hcom_allReduce_", "calls": 61, "self_ms": 1.8, "share": 0.18},),
    ]
    sums = {"step_count": 5, "step_ms": 2.5, "communication_share": 0.14, "gap_share": 0.2}
    sums = {**sums, "idle_between_ms": 0.5, "operators": operators}
    p0 = {"name": "p0", "role": "prefill", "traces": [sums, sums]}
    return json.dumps(
        {
            **{"format": 1, "began": "2026-11-24 00:05:00", "steps_wanted": 6},
            **{"faults": [f"p0: 2 of 3 workers left a trace{hostile}"], "notes": ["5 of 6 steps"]},
            **{"roles": {"prefill": sums}, "instances": [p0]},
        }
    )


def _logs(plan: Plan, hostile: str) -> str:
    host = plan.hosts[0].name
    example = {
        "file": f"{host}/p0/server_0.log",
        "line": 12,
        "text": f"OSError: {hostile} --api-key topsecret1",
    }
    one = {"kind": "no-space", "name": "no-space", "host": host, "count": 3, "files": []}
    one.update(first="2026-11-24T00:01:00", last="2026-11-24T00:02:00", example=example)
    other = {**one, "kind": f"ValueError: odd N {hostile}", "name": None}
    return json.dumps(
        {
            "environment": plan.environment,
            "fetched_at": "2026-11-24T00:10:00+00:00",
            "since": None,
            "hosts": {host: {"files": []}, "d0": {"error": f"no answer {hostile}", "files": []}},
            "errors": [one, other],
        }
    )
