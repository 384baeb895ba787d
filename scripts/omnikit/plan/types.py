"""What a deployment consists of, as plain data. No I/O, no defaults, no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from omnikit.config.layers import resolve_path
from omnikit.config.schema import Host, Secret


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
class Listener:
    """Ports that a node listens on, count of them from port on.

    kind: api, master, ray, kv, zmq or hccl; purpose: what a person calls it.
    """

    kind: str
    port: int
    count: int
    purpose: str


@dataclass(frozen=True)
class NodePlan:
    """The part of an instance that runs on one host: one start script, one or more API servers.

    server_offset: devices of the same instance on the hosts before this one. ray: what runs its
    part of a Ray cluster, if any; ray_wait: what returns once that cluster is complete.
    placement_check: what fails when omni_placement's files are not there or for another layout.
    container: the name of the one that it runs in, "" where it runs on the host itself.
    profile_dir: where its profiler writes, if that is on. prepend: what is put in front of
    variables that are there already. workdir: where its servers start, "" for no matter where.
    key_file: where the key is that its servers ask for, "" where they ask for none.
    secrets: variables whose values are references, read when it is shipped. prepare: shell commands
    that run once before its servers. compiled: what its servers' compiled code depends on, as far
    as it is planned; {}: it is not kept (caches.use).
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
    secrets: dict[str, Secret]
    prepend: dict[str, str]
    workdir: str
    files: dict[str, Any]
    ray: tuple[str, ...]
    ray_wait: tuple[str, ...]
    placement_check: tuple[str, ...]
    servers: tuple[ServerPlan, ...]
    listeners: tuple[Listener, ...]
    key_file: str = ""
    prepare: tuple[str, ...] = ()
    compiled: dict[str, Any] = field(default_factory=dict)

    def argv(self, server: ServerPlan) -> tuple[str, ...]:
        """The whole command of one API server."""
        return (*self.command, *server.own_args)

    @property
    def prepared(self) -> str:
        """The file that says that prepare has run; whoever starts the node anew removes it."""
        return f"{self.temp_dir}/prepared"

    def environment(self, server: ServerPlan) -> dict[str, str]:
        """All variables that the start script sets for one API server."""
        return {**self.env, **server.own_env}


@dataclass(frozen=True)
class ProxyPlan:
    """The proxy. prefill and decode: (address, port) of every API server, in order.

    max_num_seqs: by role, what a server of it takes at the same time, where its command says so.
    instances: by role, how many of them there are.
    metrics_from: who may read its metrics, besides its own host.
    """

    name: str
    host: str
    address: str
    listen_host: str
    port: int
    prefill: tuple[tuple[str, int], ...]
    decode: tuple[tuple[str, int], ...]
    max_num_seqs: dict[str, int]
    instances: dict[str, int]
    log_dir: str
    run_dir: str
    container: str
    metrics_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostPlan:
    """One machine. work_dir is absolute."""

    name: str
    address: str
    settings: Host
    work_dir: str
    temp_dir: str
    memory_mib: int

    @property
    def local(self) -> bool:
        """Whether this machine is the host."""
        return self.settings.local

    def path(self, text: str) -> str:
        """A configured path as this host sees it."""
        return resolve_path(text, self.local)


@dataclass(frozen=True)
class Plan:
    """Everything that a deployment will run, where.

    notes: what a person should know of the settings, though nothing is wrong; each with its place.
    """

    environment: str
    hosts: tuple[HostPlan, ...]
    nodes: tuple[NodePlan, ...]
    proxy: Optional[ProxyPlan]
    model_path: str
    served_name: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def local(self) -> bool:
        """Whether this machine is all the hosts."""
        return all(host.local for host in self.hosts)

    def path(self, text: str) -> str:
        """A configured path as the hosts see it, which is the same for all of them."""
        return resolve_path(text, self.local)

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode are separate."""
        return any(node.role == "prefill" for node in self.nodes)

    def on_host(self, host: str) -> tuple[NodePlan, ...]:
        """The nodes of one host."""
        return tuple(node for node in self.nodes if node.host == host)

    def is_part(self, node: NodePlan) -> bool:
        """Whether a node's instance runs on other hosts as well."""
        whole = {n.host for n in self.nodes if (n.role, n.instance) == (node.role, node.instance)}
        return len(whole) > 1

    def entry(self) -> tuple[str, int]:
        """Address and port that clients on this network use."""
        if self.proxy is not None:
            return reachable(self.proxy.listen_host, self.proxy.address), self.proxy.port
        first = self.nodes[0]
        return first.address, first.servers[0].api_port


def reachable(listen_host: str, address: str) -> str:
    """Where a listener can be reached: a wildcard address means the host's own."""
    return address if listen_host in ("0.0.0.0", "::") else listen_host
