"""What a deployment consists of, as plain data. No I/O, no defaults, no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omnikit.schema import Host


@dataclass(frozen=True)
class ServerPlan:
    """One API server process. devices: its logical device ids on its host."""

    name: str
    local_rank: int
    dp_rank: int
    devices: tuple[int, ...]
    api_port: int
    kv_port: int
    own_args: tuple[str, ...]
    own_env: dict[str, str]


@dataclass(frozen=True)
class NodePlan:
    """The part of an instance that runs on one host: one start script, one or more API servers.

    server_offset: devices of the same instance on the hosts before this one. ray: what runs its
    part of a Ray cluster, if any; ray_wait: what returns once that cluster is complete.
    container: the name of the one that it runs in, "" where it runs on the host itself.
    profile_dir: where its profiler writes, if that is on.
    """

    name: str
    role: str
    instance: int
    host: str
    address: str
    node_rank: int
    kv_rank: int
    devices: tuple[int, ...]
    server_offset: int
    tensor_parallel: int
    dp_size: int
    master_ip: str
    master_port: int
    zmq_port: int
    hccl_base: int
    ray_port: int
    log_dir: str
    temp_dir: str
    profile_dir: str
    container: str
    command: tuple[str, ...]
    env: dict[str, str]
    files: dict[str, Any]
    ray: tuple[str, ...]
    ray_wait: tuple[str, ...]
    servers: tuple[ServerPlan, ...]

    def argv(self, server: ServerPlan) -> tuple[str, ...]:
        """The whole command of one API server."""
        return (*self.command, *server.own_args)

    def environment(self, server: ServerPlan) -> dict[str, str]:
        """All variables that the start script sets for one API server."""
        return {**self.env, **server.own_env}


@dataclass(frozen=True)
class ProxyPlan:
    """The proxy. prefill and decode: (address, port) of every API server, in order."""

    name: str
    host: str
    address: str
    listen_host: str
    port: int
    prefill: tuple[tuple[str, int], ...]
    decode: tuple[tuple[str, int], ...]
    log_dir: str
    run_dir: str
    container: str


@dataclass(frozen=True)
class HostPlan:
    """One machine. work_dir is absolute."""

    name: str
    address: str
    settings: Host
    work_dir: str
    temp_dir: str
    memory_mib: int


@dataclass(frozen=True)
class Plan:
    """Everything that a deployment will run, where."""

    environment: str
    hosts: tuple[HostPlan, ...]
    nodes: tuple[NodePlan, ...]
    proxy: Optional[ProxyPlan]
    model_path: str
    served_name: str

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode are separate."""
        return any(node.role == "prefill" for node in self.nodes)

    def on_host(self, host: str) -> tuple[NodePlan, ...]:
        """The nodes of one host."""
        return tuple(node for node in self.nodes if node.host == host)

    def entry(self) -> tuple[str, int]:
        """Address and port that clients on this network use."""
        if self.proxy is not None:
            return reachable(self.proxy.listen_host, self.proxy.address), self.proxy.port
        first = self.nodes[0]
        return first.address, first.servers[0].api_port


def reachable(listen_host: str, address: str) -> str:
    """Where a listener can be reached: a wildcard address means the host's own."""
    return address if listen_host in ("0.0.0.0", "::") else listen_host
