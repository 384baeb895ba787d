"""host.json: what the code on a host needs to know, as data. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Mapping, Optional

from omnikit import container_plan, proxy, render
from omnikit.plan_types import HostPlan, NodePlan, Plan, ProxyPlan, reachable
from omnikit.schema import Settings
from omnikit.topology import resolve_path

Files = dict[str, str]


def host_files(
    plan: Plan,
    host: HostPlan,
    settings: Settings,
    inputs: Mapping[str, str],
    proxy_found: Any,
    tables: Mapping[str, str],
) -> Files:
    """All rendered files of one host by path below bundle/, host.json among them.

    inputs: fingerprints of what the servers use but the files do not contain (engine, model):
    when one changes, the servers are restarted. tables: the host's rank tables by path below
    ranktable/; they too are among what the servers were started with.
    """
    ranks = {f"ranktable/{name}": text for name, text in tables.items()}
    files: Files = dict(ranks)
    nodes = []
    for node in plan.on_host(host.name):
        if not (node.servers or node.ray):
            continue
        own = {f"{node.name}/start.sh": render.start_script(plan.environment, node)}
        for name, data in node.files.items():
            own[f"{node.name}/{name}"] = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        files.update(own)
        nodes.append(_node(node, host, settings, {**own, **ranks}, inputs))
    if plan.proxy is not None and plan.proxy.host == host.name:
        spec = proxy_spec(plan.proxy, settings, host, proxy_found)
        made = proxy.files(spec, plan.environment)
        own = {f"{plan.proxy.name}/{name}": text for name, text in made.items()}
        files.update(own)
        nodes.append(_proxy_node(plan.proxy, spec, own, host))
    data = {
        "format": 1,
        "environment": plan.environment,
        "host": host.name,
        "work_dir": host.work_dir,
        "temp_dir": host.temp_dir,
        "deadline_s": settings.readiness.deadline_s,
        "poll_interval_s": settings.readiness.poll_interval_s,
        "request_timeout_s": settings.readiness.request_timeout_s,
        "grace_s": settings.stop.grace_s,
        "log_tail_lines": settings.fleet.log_tail_lines,
        "metrics": settings.metrics.model_dump(),
        "devices": sorted({device for node in plan.on_host(host.name) for device in node.devices}),
        "ranktable": settings.ranktable.model_dump(),
        "containers": container_plan.host_specs(settings, plan, host),
        "container_python": settings.container.python,
        "nodes": nodes,
    }
    files["host.json"] = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    return files


def _digest(own: Files, node: dict[str, Any], inputs: Mapping[str, str]) -> str:
    text = json.dumps([sorted(own.items()), node, sorted(inputs.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _node(
    node: NodePlan, host: HostPlan, settings: Settings, own: Files, inputs: Mapping[str, str]
) -> dict[str, Any]:
    script = f"{host.work_dir}/bundle/{node.name}/start.sh"
    ports = [[node.address, server.api_port] for server in node.servers]
    if node.role != "colocated":
        ports += [[node.address, server.kv_port] for server in node.servers]
    requires = [[f"{_model_path(node)}/config.json", "the model"]] if _model_path(node) else []
    if node.command and node.command[0].startswith("/") and not node.container:
        requires.append([node.command[0], "the engine"])
    if node.ray and node.servers:
        ports.append([node.address, node.ray_port])
    made: dict[str, Any] = {
        "name": node.name,
        "role": node.role,
        "log_dir": node.log_dir,
        "temp_dir": node.temp_dir,
        "container": node.container,
        "memory_mib": settings.engine.memory_per_server_mib * len(node.servers),
        "ports": ports,
        "requires": requires,
        "source_dir": _source_dir(host, settings),
        "servers": [
            *_ray_server(node, script),
            *(
                {
                    "name": server.name,
                    "argv": ["bash", script, str(server.local_rank)],
                    "log": f"{node.log_dir}/server_{server.local_rank}.log",
                    "address": node.address,
                    "port": server.api_port,
                    "url": f"http://{_in_url(node.address)}:{server.api_port}",
                    "health": "/health",
                    "model": settings.model.served_name,
                }
                for server in node.servers
            ),
        ],
    }
    return {**made, "digest": _digest(own, made, inputs)}


def _source_dir(host: HostPlan, settings: Settings) -> Optional[str]:
    """The source's copy that the servers use; None where nothing is copied."""
    paths = settings.paths
    if paths.local_code_dir is None or paths.code_dir is None:
        return None
    return resolve_path(paths.code_dir, host.settings.connection == "local")


def _ray_server(node: NodePlan, script: str) -> list[dict[str, Any]]:
    """A node's part of its instance's Ray cluster: it is ready as long as it runs."""
    if not node.ray:
        return []
    return [
        {
            "name": f"{node.name}.ray",
            "argv": ["bash", script, "ray"],
            "log": f"{node.log_dir}/ray.log",
            "address": node.address,
            "port": node.ray_port,
            "url": "",
            "health": None,
            "model": None,
        }
    ]


def _model_path(node: NodePlan) -> str:
    """The model's folder as the command names it: after --model, or as an argument of serve."""
    words = node.command
    for flag in ("--model", "serve"):
        if flag in words[:-1]:
            path = words[words.index(flag) + 1]
            return path if path.startswith("/") else ""
    return ""


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def proxy_spec(plan: ProxyPlan, settings: Settings, host: HostPlan, found: Any) -> proxy.ProxySpec:
    """What omnikit.proxy needs to know; found: the installed kind and its programs."""
    values = settings.proxy.model_dump(exclude={"kind", "listen_host", "venv", "install_timeout_s"})
    values.update({key: value for key, value in found.items() if key != "kind"})
    return proxy.ProxySpec(
        kind=found["kind"],
        listen_host=plan.listen_host,
        listen_port=plan.port,
        prefill=plan.prefill,
        decode=plan.decode,
        run_dir=plan.run_dir,
        log_dir=plan.log_dir,
        settings=values,
    )


def _proxy_node(
    plan: ProxyPlan, spec: proxy.ProxySpec, own: Files, host: HostPlan
) -> dict[str, Any]:
    address = reachable(plan.listen_host, plan.address)
    made: dict[str, Any] = {
        "name": plan.name,
        "role": "proxy",
        "log_dir": plan.log_dir,
        "temp_dir": plan.run_dir,
        "container": plan.container,
        "seed_dir": f"{host.work_dir}/bundle/{plan.name}",
        "memory_mib": 0,
        "ports": [[plan.listen_host, plan.port]],
        "requires": [],
        "servers": [
            {
                "name": plan.name,
                "argv": proxy.command(spec),
                "log": f"{plan.log_dir}/proxy.log",
                "address": address,
                "port": plan.port,
                "url": f"http://{_in_url(address)}:{plan.port}",
                "health": proxy.health_path(spec),
                "model": None,
            }
        ],
    }
    if proxy.reload_command(spec) is None:
        return {**made, "digest": _digest(own, made, {})}
    # Other files need no restart: the running one takes them over.
    texts = {name.partition("/")[2]: text for name, text in own.items()}
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    check = proxy.check_command(spec)
    return {**made, "digest": _digest({}, made, {}), "files": sums, "check": check}
