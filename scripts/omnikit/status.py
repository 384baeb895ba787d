"""The state of every server of an environment, observed now."""

from __future__ import annotations

from typing import Any, Optional

from omnikit import deployment, fleet, smoke_test
from omnikit.config import Config
from omnikit.log import table
from omnikit.plan_types import Plan
from omnikit.topology import make_plan


def collect(config: Config) -> dict[str, Any]:
    """Observe all hosts: {environment, ok, url, nodes, completion}.

    A host that was never deployed to shows its planned nodes as stopped.
    """
    plan = make_plan(config)
    observed = observe(config, plan)
    nodes = [observed.get(name) or _stopped(name, role, host) for name, role, host in _rows(plan)]
    planned = {node["node"] for node in nodes}
    nodes += [node for name, node in observed.items() if name not in planned]
    for node in nodes:
        for server in node["servers"]:
            server["model"] = plan.served_name if node["role"] != "proxy" else None
    ready = all(node["state"] == "ready" for node in nodes) and all(
        server["state"] == "ready" for node in nodes for server in node["servers"]
    )
    completion: Optional[dict[str, Any]] = None
    if ready:
        completion = smoke_test.one_completion(plan, config.settings).as_dict()
    return {
        "environment": plan.environment,
        "ok": bool(ready and completion and completion["passed"]),
        "url": smoke_test.base_url(plan),
        "nodes": nodes,
        "completion": completion,
    }


def observe(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """What the hosts say about the nodes that were deployed there, by node name.

    Nodes of a host that cannot be reached are "unreachable", with the reason.
    """
    folder = deployment.control_folder(config.environment)
    inventory = folder / "inventory.json"
    if not inventory.exists():
        return {}
    outcome = fleet.play("status.yml", inventory, config.settings)
    away = {e["host"]: e for e in outcome.failures if e["event"] == "unreachable"}
    fleet.raise_failures(
        fleet.Outcome(failures=[e for e in outcome.failures if e["host"] not in away])
    )
    found = {
        node["node"]: {**node, "host": host}
        for host, data in outcome.json("Observe").items()
        for node in data["nodes"]
    }
    for name, role, host in _rows(plan):
        if host in away:
            reason = str(fleet.failure(away[host]))
            found[name] = {**_stopped(name, role, host), "state": "unreachable", "reason": reason}
    return found


def _rows(plan: Plan) -> list[tuple[str, str, str]]:
    rows = [(node.name, node.role, node.host) for node in plan.nodes if node.servers]
    if plan.proxy is not None:
        rows.append((plan.proxy.name, "proxy", plan.proxy.host))
    return rows


def _stopped(name: str, role: str, host: str) -> dict[str, Any]:
    return {"node": name, "role": role, "host": host, "state": "stopped", "servers": []}


def as_text(found: dict[str, Any]) -> str:
    """The table for people."""
    header = ["instance", "role", "host", "port", "pid", "state", "uptime", "model"]
    header += ["running", "waiting", "KV use"]
    rows = []
    notes = []
    for node in found["nodes"]:
        for server in node["servers"] or [{"name": node["node"], "state": node["state"]}]:
            rows.append(_row(node, server))
            if server["state"] == "failed":
                why = server.get("reason") or (server.get("tail") or [""])[-1]
                notes.append(f"{server['name']} failed: {why}\n  log: {server['log']}")
    away = {n["host"]: n["reason"] for n in found["nodes"] if n["state"] == "unreachable"}
    lines = [table(rows, header), *notes, *away.values()]
    completion = found["completion"]
    if completion is None:
        lines.append("no completion was tried: not every server is ready.")
        lines.append("What to do: make deploy, or see why: invoke logs")
    elif completion["passed"]:
        lines.append(f"a completion through {found['url']} answered {completion['found']}")
    else:
        lines.append(f"the completion through {found['url']} failed: {completion['found']}")
    return "\n".join(lines)


def _row(node: dict[str, Any], server: dict[str, Any]) -> list[str]:
    def cell(key: str, form: str = "{:g}") -> str:
        value = server.get(key)
        return "-" if value is None else form.format(value)

    return [
        server["name"],
        str(node["role"]),
        str(node["host"]),
        cell("port"),
        cell("pid", "{}"),
        server["state"],
        _span(server.get("uptime_s")),
        server.get("model") or "-",
        cell("running"),
        cell("waiting"),
        cell("kv_usage", "{:.1%}"),
    ]


def _span(seconds: Optional[float]) -> str:
    """A duration that a person reads at a glance: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
