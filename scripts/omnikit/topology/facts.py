"""Single facts of a plan: an API server's, a rank table's name, where the engine is. Pure."""

from __future__ import annotations

from typing import Any, Callable

from omnikit.config.schema import Settings
from omnikit.plan.types import NodePlan
from omnikit.topology.members import Member
from omnikit.topology.ports import NodePorts


def engine_places(settings: Settings, path: Callable[..., str]) -> tuple[str, str]:
    """The engine's virtual environment, "" for none, and its Python: in the image or on the host.

    path(text, *setting) resolves a configured path.
    """
    container = settings.container
    if settings.runtime == "docker":
        home = container.venv or ""
        return home, f"{home}/bin/python" if home else container.python
    venv = settings.engine.venv
    home = path(venv, "engine", "venv") if venv else ""
    return home, f"{home}/bin/python" if home else "python3"


def server(m: Member, k: int, ports: NodePorts) -> dict[str, Any]:
    """The k-th API server of a node, without its command."""
    tp = m.tensor_parallel
    whole = m.servers == "instance"
    return {
        "name": m.name if m.server_count < 2 else f"{m.name}.{k}",
        "local_rank": k,
        "dp_rank": m.server_offset + k if m.servers == "ranks" else 0,
        "devices": m.devices if whole else m.devices[k * tp : (k + 1) * tp],
        "api_port": ports.api + k,
        "kv_port": ports.kv + k,
    }


def server_facts(plan: dict[str, Any], offset: int, dp_size: int) -> dict[str, Any]:
    """What a server's words may refer to beyond its node's facts.

    external_dp_rank: null where the server is alone, as external_dp_size is; vLLM then takes
    neither.
    """
    made = {name: plan[name] for name in ("local_rank", "dp_rank", "api_port", "kv_port")}
    made["offset_rank"] = plan["local_rank"] + offset
    made["external_dp_rank"] = plan["dp_rank"] if dp_size > 1 else None
    devices = ",".join(map(str, plan["devices"]))
    return {**made, "server_name": plan["name"], "server_devices": devices}


def rank_table(address: str, m: Member, hosts: int) -> str:
    """File name of the rank table of a node's own instance."""
    if hosts > 1:
        return "local_ranktable_merge.json"
    return f"local_ranktable_{address}_{''.join(map(str, m.devices))}.json"


def endpoints(nodes: list[NodePlan], role: str) -> tuple[tuple[str, int], ...]:
    """Address and port of every API server of a role, in order."""
    return tuple((n.address, s.api_port) for n in nodes if n.role == role for s in n.servers)
