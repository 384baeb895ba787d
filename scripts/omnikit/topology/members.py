"""Who runs what where: each instance on its hosts, with devices, ranks and server settings.

The files of engine, release and model fill ranks, sizes, addresses and ports from the plan. A wrong
one of them ends in a crash of one server of many, in a hang, or in wrong answers: values that
follow from the plan must not be replaced by others.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from omnikit.config.config import Config
from omnikit.config.schema import ROLES, Instance, Server
from omnikit.plan.arguments import env_text, fill, references, size_of
from omnikit.yaml.node import Node
from omnikit.yaml.setting_types import parse_devices

# Each device of a tensor parallel group stands for as many. Of decode context parallel size none is
# added: it divides the devices of a group.
_MULTIPLY = ("pipeline-parallel-size", "prefill-context-parallel-size")
PREFIX = {"prefill": "p", "decode": "d", "colocated": "s"}


@dataclass(frozen=True)
class Member:
    """One host's part of an instance.

    offset and server_offset: devices and API servers of the instance on the hosts before.
    server_devices: of one API server, over all its hosts. key:
    equal for members whose server settings are equal. servers: what the instance's API servers are,
    see roles in configs/defaults.yaml.
    """

    name: str
    role: str
    index: int
    host: str
    node_rank: int
    devices: tuple[int, ...]
    offset: int
    server: Server
    settings: Node
    key: tuple[str, int, str]
    tensor_parallel: int
    server_devices: int
    server_count: int
    server_offset: int
    servers: str


@dataclass(frozen=True)
class Group:
    """An instance: members in the order of its hosts, the master first."""

    role: str
    index: int
    entry: Instance
    members: tuple[Member, ...]

    @property
    def server_count(self) -> int:
        """API servers of the whole instance."""
        return sum(member.server_count for member in self.members)

    @property
    def dp_size(self) -> int:
        """Data-parallel size of the whole instance."""
        return self.server_count if self.members[0].servers == "ranks" else 1


def groups(config: Config) -> list[Group]:
    """Every instance on its hosts, which must be known. Raises InputError."""
    known: dict[tuple[str, int, str], tuple[Server, Node, int]] = {}
    made: list[Group] = []
    for role in ROLES:
        count = 0
        for index, entry in enumerate(getattr(config.settings.topology, role)):
            group = Group(role, index, entry, tuple(_members(config, role, index, count, known)))
            count += len(group.members)
            made.append(group)
    return made


def host_devices(config: Config, entry: Instance, host: str) -> tuple[int, ...]:
    """The devices of an instance on one host: as its part there says, the host, itself, or all."""
    own = entry.parts[host].devices if host in entry.parts else None
    for text in (own, config.settings.hosts[host].devices, entry.devices):
        if text is not None:
            return parse_devices(text)
    return parse_devices(config.settings.devices)


def node_name(config: Config, entry: Instance, host: str) -> Optional[str]:
    """The name that somebody gave the part of an instance on one host, if any."""
    own = entry.parts[host].node_name if host in entry.parts else None
    return own or config.settings.hosts[host].node_name


def _names(config: Config, role: str, entry: Instance, first: int) -> list[str]:
    """What the parts of an instance are called, one on each of its hosts."""
    given = [node_name(config, entry, host) for host in entry.hosts]
    return [name or f"{PREFIX[role]}{first + rank}" for rank, name in enumerate(given)]


def _members(
    config: Config,
    role: str,
    index: int,
    first: int,
    known: dict[tuple[str, int, str], tuple[Server, Node, int]],
) -> list[Member]:
    settings = config.settings
    entry: Instance = getattr(settings.topology, role)[index]
    per_host = [host_devices(config, entry, host) for host in entry.hosts]
    npu = settings.engine.device_kind == "npu"
    servers_are = config.servers_are(role, index)
    whole = servers_are == "instance"
    names = _names(config, role, entry, first)
    # All parts of an instance record, or none: they compute each step together.
    profiled = not set(settings.profiling.instances).isdisjoint(names)
    made: list[Member] = []
    offset = servers = 0
    for rank, (host, devices) in enumerate(zip(entry.hosts, per_host)):
        # Settings are merged and checked once for all whom no override of their own sets apart.
        apart = entry.server is not None or config.on_ray(role, index) or profiled
        own_instance = index if apart else -1
        key = (role, own_instance, host if settings.hosts[host].server is not None else "")
        if key not in known:
            server, tree = config.server_for(role, index, host, profiled)
            known[key] = server, tree, prod(size_of(server.args, name) for name in _MULTIPLY)
        server, tree, times = known[key]
        tp = server.tensor_parallel
        if tp is None:
            tp = max(1, sum(map(len, per_host)) // times) if npu and whole else 1
            tp = tp if npu else size_of(server.args, "tensor-parallel-size")
        count = len(devices) // (tp * times) if npu else 1
        if whole:
            count = 1 if rank == 0 else 0
        made.append(
            Member(
                name=names[rank],
                role=role,
                index=index,
                host=host,
                node_rank=rank,
                devices=devices,
                offset=offset,
                server=server,
                settings=tree,
                key=key,
                tensor_parallel=tp,
                server_devices=tp * times,
                server_count=count,
                server_offset=servers,
                servers=servers_are,
            )
        )
        offset += len(devices)
        servers += count
    return made


# Facts that come from the topology alone. Of others (paths, the interface, the model's name) a user
# may know better.
_RANKS = {"dp_rank", "external_dp_rank", "offset_rank", "local_rank", "node_rank", "kv_rank"}
_RANKS |= {"server_offset"}
_SIZES = {"dp_size", "tp_size", "kv_parallel_size", "prefill_count", "decode_count"}
_SIZES |= {"external_dp_size", "instance_devices"}
_BOTH = {"prefill_dp_size", "prefill_tp_size", "decode_dp_size", "decode_tp_size"}
_DEVICES = {"devices", "server_devices"}
_ROLES = {"role", "kv_role", "engine_id", "ranktable_dir", "rank_table"}
_ADDRESSES = {"master_ip", "host_ip", "decode_ips", "instance_ips"}
_PORTS = {"master_port", "zmq_port", "hccl_base", "api_port", "kv_port", "kv_base", "ray_port"}
_TOPOLOGY = _RANKS | _SIZES | _BOTH | _DEVICES | _ROLES | _ADDRESSES | _PORTS
# Without one of its own an engine takes a default that suits a host with one instance.
_MAY_BE_NONE = {"hccl_base"}


def replaced_by(told: Node, shipped: Node) -> list[Any]:
    """What settings of a server were before others took their place; not what was removed."""
    found = []
    for path, node in shipped.leaves():
        now = told.find(path)
        if now is not None and now.value is not None and now.plain() != node.plain():
            found.append(node.plain())
    return found


@dataclass(frozen=True)
class Override:
    """A value that was replaced. shipped and told: as they stand, with ${plan.NAME} in them."""

    path: tuple[str, ...]
    shipped: Node
    told: Optional[Node]
    place: str


class Overrides:
    """Finds them, once for all members whose settings are equal."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[tuple[str, int, str], list[Override]] = {}

    def check(
        self, m: Member, facts: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]
    ) -> Iterator[InputError]:
        """An error for each value of a member's servers that is not the planned one."""
        if m.key not in self._known:
            self._known[m.key] = list(self._find(m))
        for override in self._known[m.key]:
            for own in servers:
                known = {**facts, **own}
                planned = env_text(fill(override.shipped.plain(), known))
                told = override.told and fill(override.told.plain(), known)
                if told is not None and env_text(told) == planned:
                    continue
                name = override.path[-1]
                says = f"{name} {env_text(told)}" if told is not None else f"no {name}"
                yield InputError(
                    f"{own['server_name'] if len(servers) > 1 else m.name} is told {says}, the plan"
                    f" has {planned}.",
                    where=override.place,
                    todo=f"remove it: {override.shipped.origin} has {override.shipped.value}",
                )
                break  # the others of the node are wrong in the same way

    def _find(self, m: Member) -> Iterator[Override]:
        shipped = self._config.shipped_server(m.role, m.index)
        if shipped is None:
            return
        for section in ("env", "args"):
            for path, node in (shipped.child(section) or Node({}, shipped.origin)).leaves():
                facts = references(node.plain())
                if facts.isdisjoint(_TOPOLOGY):
                    continue
                told = m.settings.find((section, *path))
                if told is not None and told.plain() == node.plain():
                    continue
                if told is None or told.value is None:
                    flag = m.settings.find((section, path[0]))
                    moved = references(flag.plain()) if flag is not None else set()
                    # A MultiConnector has them at one of its connectors.
                    if facts <= moved or not facts.isdisjoint(_MAY_BE_NONE):
                        continue
                    told = None
                place = str(m.settings.at((section, *path)).origin)
                yield Override((section, *path), node, told, place)
