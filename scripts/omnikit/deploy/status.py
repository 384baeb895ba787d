"""The state of every server of an environment, observed now."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Mapping, Optional, Union

from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until
from hostkit.base.log import table
from omnikit.access import targets
from omnikit.config import layers
from omnikit.config.config import Config
from omnikit.config.schema import Settings
from omnikit.deploy import smoke_test
from omnikit.fleet import direct_ssh
from omnikit.plan.types import HostPlan, Plan
from omnikit.proxy import values
from omnikit.topology.topology import make_plan

_LOOK_S = 0.3  # between two looks at the pool
NOT_DEPLOYED = "not deployed from here"  # a state


def collect(config: Config) -> dict[str, Any]:
    """Observe all hosts: {environment, asked, ok, url, nodes, completion}.

    A host that was never deployed to shows its planned nodes as stopped. Where nothing was deployed
    from this machine no host is asked, and nothing is known of any.
    """
    plan = make_plan(config)
    asked = is_deployed(config)
    nodes = states(config, plan)
    out = {name for node in nodes for name in node.get("out_of_pool", ())}
    for node in nodes:
        for server in node["servers"]:
            server["keeps_kv"] = keeps_kv(server, config.settings.doctor.kv_high)
            server["model"] = plan.served_name if node["role"] != "proxy" else None
            server["in_pool"] = f"{server.get('address')}:{server.get('port')}" not in out
    ready = all(node["state"] == "ready" for node in nodes) and all(
        server["state"] == "ready" for node in nodes for server in node["servers"]
    )
    completion: Optional[dict[str, Any]] = None
    if ready:
        completion = smoke_test.one_completion(plan, config.settings).as_dict()
    return {
        "environment": plan.environment,
        "asked": asked,
        "ok": bool(ready and not out and completion and completion["passed"]),
        "url": targets.url(plan, config.settings),
        "nodes": nodes,
        "completion": completion,
    }


def states(config: Config, plan: Plan) -> list[dict[str, Any]]:
    """What the hosts say of each planned node, and of others that run. Raises as observe does."""
    observed = observe(config, plan)
    state = "stopped" if is_deployed(config) else NOT_DEPLOYED
    nodes = [observed.get(n) or _idle(n, role, host, state) for n, role, host in _rows(plan)]
    planned = {node["node"] for node in nodes}
    return [*nodes, *(node for name, node in observed.items() if name not in planned)]


def keeps_kv(server: Mapping[str, Any], share: float) -> bool:
    """Whether a server has this share of its KV cache in use at least, and no request.

    Cached blocks of earlier prompts do not count: vLLM counts those that a request holds.
    """
    idle = server.get("running") == 0 and not server.get("waiting")
    return idle and (server.get("kv_usage") or 0.0) >= share


def is_deployed(config: Config) -> bool:
    """Whether anything was deployed from this machine, so that its hosts are worth asking."""
    return (layers.control_folder(config.environment) / "inventory.json").exists()


def observe(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """What the hosts say about the nodes that were deployed there, by node name.

    All hosts are asked at the same time, over kept SSH connections: Ansible takes several times as
    long. Nodes of a host that cannot be reached are "unreachable", with the reason. Raises
    ActionError where a host's answer is an error.
    """
    if not is_deployed(config):
        return {}
    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(plan.hosts))) as pool:
        answers = pool.map(lambda host: _ask(host, config.settings), plan.hosts)
        for host, answer in zip(plan.hosts, answers):
            if isinstance(answer, str):
                for name, role, place in _rows(plan):
                    if place == host.name:
                        away = _idle(name, role, place, "unreachable")
                        found[name] = {**away, "reason": answer}
                continue
            for node in answer:
                found[node["node"]] = {**node, "host": host.name}
    return found


# Arguments: a file that is there where something was deployed, then the command that tells of it.
_IF_DEPLOYED = 'test -e "$1" || exit 0; shift; exec "$@"'


def _ask(host: HostPlan, settings: Settings) -> Union[list[dict[str, Any]], str]:
    """What a host says about its nodes, or why it cannot be reached."""
    agent = f"{host.work_dir}/scripts/host_agent.py"
    words = ["sh", "-c", _IF_DEPLOYED, "sh", f"{host.work_dir}/bundle/host.json"]
    with direct_ssh.link(host, settings) as link:
        try:
            done = link.ask(*words, link.python, agent, "status")
        except direct_ssh.Unreachable as error:
            return f"host {host.name}: {error}"
    if done.code != 0:
        raise ActionError(f"its servers cannot be seen: {done.tail}", where=f"host {host.name}")
    nodes: list[dict[str, Any]] = json.loads(done.out)["nodes"] if done.out.strip() else []
    return nodes


def in_pool(plan: Plan, settings: Settings) -> smoke_test.Check:
    """Whether the proxy, where there is one, gives to all servers. One that failed a moment
    ago is held back, however well it is now: waited for as long as that may last.
    """
    place = plan.proxy.host if plan.proxy else None
    host = next((host for host in plan.hosts if host.name == place), None)
    if host is None:
        return smoke_test.Check("pool", True, "there is no proxy")
    # After proxy.fail_timeout at the latest it is asked again, for a real answer.
    wait_s = values.seconds(settings.proxy.fail_timeout) + settings.smoke_test.timeout_s
    found: Union[list[dict[str, Any]], str] = []
    out: list[str] = []

    def known() -> bool:
        nonlocal found, out
        assert host is not None
        found = _ask(host, settings)
        nodes = [] if isinstance(found, str) else found
        out = [name for node in nodes for name in node.get("out_of_pool", ())]
        return not out

    wait_until(known, wait_s, _LOOK_S)
    if isinstance(found, str):
        return smoke_test.Check("pool", False, found)
    said = f"gives no requests to {', '.join(out)}" if out else "all servers"
    return smoke_test.Check("pool", not out, said)


def _rows(plan: Plan) -> list[tuple[str, str, str]]:
    rows = [(node.name, node.role, node.host) for node in plan.nodes if node.servers]
    if plan.proxy is not None:
        rows.append((plan.proxy.name, "proxy", plan.proxy.host))
    return rows


def _idle(name: str, role: str, host: str, state: str) -> dict[str, Any]:
    return {"node": name, "role": role, "host": host, "state": state, "servers": []}


def as_text(found: dict[str, Any]) -> str:
    """The table for people."""
    header = ["instance", "role", "host", "port", "pid", "state", "uptime", "model"]
    header += ["running", "waiting", "KV use"]
    rows = []
    notes = []
    for node in found["nodes"]:
        if node.get("left_out"):
            notes.append(
                f"{node['node']} sends nothing to {', '.join(node['left_out'])}: a rolling restart"
                " left it out.\nWhat to do: invoke roll again, or back: invoke rollback"
            )
        if node.get("restarts") and node["state"] == "ready":
            notes.append(f"{again(node)}\nWhat happened: invoke history")
        elif node.get("reason"):
            notes.append(f"{node['node']} {node['state']}: {node['reason']}")
        for server in node["servers"] or [{"name": node["node"], "state": node["state"]}]:
            rows.append(_row(node, server))
            if server.get("keeps_kv"):
                notes.append(
                    f"{server['name']} keeps KV ({server['kv_usage']:.1%}) and has no request."
                    "\nWhat to do: if it is still so in a minute, invoke doctor says why"
                )
            if server["state"] == "ready" and server.get("in_pool") is False:
                notes.append(
                    f"{server['name']} gets no requests: the proxy took it out of its pool."
                    "\nWhat to do: if it is still so in a minute, invoke doctor says why"
                )
            if server["state"] == "failed" and "log" in server:  # else its node has told why
                why = server.get("reason") or (server.get("tail") or [""])[-1]
                notes.append(f"{server['name']} failed: {why}\n  log: {server['log']}")
    away = {n["host"]: n["reason"] for n in found["nodes"] if n["state"] == "unreachable"}
    lines = [table(rows, header), *notes, *away.values()]
    completion = found["completion"]
    if not found["asked"]:
        lines.append("nothing was deployed from this machine; no host was asked.")
        lines.append(f"What to do: invoke deploy -e {found['environment']}, or ask where it was")
    elif completion is None:
        lines.append("no completion was tried: not every server is ready.")
        lines.append("What to do: invoke deploy, or see why: invoke doctor")
    elif completion["passed"]:
        lines.append(f"a completion through {found['url']} answered {completion['found']}")
    else:
        lines.append(f"the completion through {found['url']} failed: {completion['found']}")
    return "\n".join(lines)


def again(node: Mapping[str, Any]) -> str:
    """That a node was started again by itself, how often, when last and why."""
    seen = node["restarts"]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen["at"]))
    times = "once" if seen["count"] == 1 else f"{seen['count']} times"
    return f"{node['node']} was started again {times} by itself, last at {at}: {seen['why']}"


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
        server["state"] if server.get("in_pool", True) else f"{server['state']}, not in the pool",
        span(server.get("uptime_s")),
        server.get("model") or "-",
        cell("running"),
        cell("waiting"),
        cell("kv_usage", "{:.1%}"),
    ]


def span(seconds: Optional[float]) -> str:
    """A duration that a person reads at a glance: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
