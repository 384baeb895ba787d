"""What the checks of each host are told, from configuration and plan. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Optional

from omnikit.config import Config
from omnikit.plan_types import HostPlan, NodePlan, Plan
from omnikit.topology import resolve_path
from omnikit.topology_facts import engine_places

Port = list[Any]  # [address, port, what it is planned for]
SSH_PORT = 22  # what ssh itself takes where a host names no port
# Up to so many pings every device tries every peer; each takes a second or two.
_FEW_PINGS = 64


def check_parameters(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """Parameters of the job "check" by host."""
    return {host.name: _of_host(config, plan, host) for host in plan.hosts}


def _of_host(config: Config, plan: Plan, host: HostPlan) -> dict[str, Any]:
    settings, nodes = config.settings, plan.on_host(host.name)
    docker = settings.runtime == "docker"
    return {
        "host": host.name,
        "work_dir": host.work_dir,
        "device_kind": settings.engine.device_kind,
        "devices": sorted({device for node in nodes for device in node.devices}),
        "runtime": settings.runtime,
        "disaggregated": plan.disaggregated,
        "ports": ports(config, plan, host.name),
        "interface": host.settings.interface,
        "address": host.address,
        "peers": [[other.name, other.address] for other in plan.hosts if other is not host],
        "paths": {"model": plan.model_path, "log": _log_dir(config, plan), "code": host.work_dir},
        "quantization": _quantization(nodes),
        "model_generated": settings.model.generate_seed is not None,
        "image": settings.container.image if docker else None,
        "image_built": settings.container.build is not None,
        "container_engine": settings.container.engine,
        "container_devices": list(settings.container.devices),
        "mounts": list(settings.container.mounts),
        "image_free_mib": settings.image.free_mib,
        "shm_size": settings.container.shm_size if docker else None,
        "venv_python": None if docker else _engine_python(config, plan),
        "checks": settings.checks.model_dump(),
        "ranktable": settings.ranktable.model_dump(),
    }


def _quantization(nodes: Iterable[NodePlan]) -> list[str]:
    """What the servers of these nodes are told as --quantization."""
    words = [(*node.command, *(w for s in node.servers for w in s.own_args)) for node in nodes]
    pairs = [pair for line in words for pair in zip(line, line[1:])]
    return sorted({value for flag, value in pairs if flag in ("--quantization", "-q")})


def ports(config: Config, plan: Plan, host: str) -> list[Port]:
    """Every port that the plan gives a host, with what it is for."""
    found = [port for node in plan.on_host(host) for port in _node_ports(config, node)]
    if plan.proxy is not None and plan.proxy.host == host:
        found.append([plan.proxy.listen_host, plan.proxy.port, "the proxy"])
    return found


def _node_ports(config: Config, node: NodePlan) -> Iterator[Port]:
    for server in node.servers:
        yield [node.address, server.api_port, f"the API of {server.name}"]
    if node.node_rank == 0:
        yield [node.address, node.master_port, f"the master of {node.name}"]
        if node.ray:
            yield [node.address, node.ray_port, f"the Ray head of {node.name}"]
    if node.role != "colocated":
        for server in node.servers:
            yield [node.address, server.kv_port, f"the KV side channel of {server.name}"]
        yield [node.address, node.zmq_port, f"the ZMQ messages of {node.name}"]
    if config.settings.engine.device_kind == "npu":
        for number in range(config.settings.ports.hccl_span):
            yield [node.address, node.hccl_base + number, f"HCCL of {node.name}"]


def _is_local(plan: Plan) -> bool:
    return all(host.settings.connection == "local" for host in plan.hosts)


def _log_dir(config: Config, plan: Plan) -> str:
    given = config.settings.paths.log_dir
    return resolve_path(given, _is_local(plan)) if given else f"{plan.hosts[0].work_dir}/logs"


def _engine_python(config: Config, plan: Plan) -> Optional[str]:
    """The engine's Python where somebody else installs it: what the toolkit installs may come."""
    if config.settings.engine.venv is None or config.settings.engine.requirements is not None:
        return None
    _, python = engine_places(
        config.settings, lambda text, *setting: resolve_path(text, _is_local(plan))
    )
    return python


def reach_parameters(
    config: Config, plan: Plan, device_ips: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """Parameters of the job "reach" by host; none where the hosts need not reach one another.

    device_ips: the addresses of devices by host and device id, where a host said them.
    """
    if not plan.disaggregated or len(plan.hosts) < 2:
        return {}
    settings = config.settings
    found = {}
    for host in plan.hosts:
        peers = [other for other in plan.hosts if other is not host]
        found[host.name] = {
            "host": host.name,
            "peers": [[p.name, p.address, p.settings.port or SSH_PORT] for p in peers],
            "pings": pings(
                sorted(map(int, device_ips.get(host.name, {}))),
                [list(device_ips[p.name].values()) for p in peers if device_ips.get(p.name)],
            ),
            "hccn_tool": settings.ranktable.hccn_tool,
            "timeout_s": settings.checks.timeout_s,
            "interval_s": settings.ranktable.interval_s,
            "at_once": settings.checks.peers_at_once,
        }
    return found


def pings(devices: list[int], peers: list[list[str]]) -> list[list[Any]]:
    """Which device pings which address: each device and each peer at least once, all if few.

    >>> pings([0, 1], [["10.1.1.100", "10.1.1.101"]])
    [[0, '10.1.1.100'], [1, '10.1.1.101']]
    """
    if not devices or not peers:
        return []
    if len(devices) * len(peers) <= _FEW_PINGS:
        return [
            [device, peer[place % len(peer)]]
            for peer in peers
            for place, device in enumerate(devices)
        ]
    rounds = range(max(len(devices), len(peers)))
    return [
        [devices[number % len(devices)], _of(peers[number % len(peers)], number)]
        for number in rounds
    ]


def _of(addresses: list[str], number: int) -> str:
    return addresses[number % len(addresses)]
