"""Which port everything uses: bases, offsets and overrides, each claimed once on its machine.

Claimed is what is listened on, and only that: a server that is not told a port opens none, and
some ports are opened in certain layouts alone (see _Planned). What somebody chose stays; what the
toolkit chooses moves out of the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Union

from hostkit.base.errors import InputError
from omnikit.config.config import Config
from omnikit.config.schema import RandomPorts, Settings
from omnikit.plan.arguments import references
from omnikit.plan.types import Listener, NodePlan
from omnikit.topology.members import Group, Member, replaced_by

# Every port that a plan uses, per host, each claimed once.


@dataclass(frozen=True)
class Claim:
    """count ports from first on, for a purpose that a person recognises."""

    first: int
    count: int
    purpose: str
    setting: str

    @property
    def last(self) -> int:
        return self.first + self.count - 1


@dataclass
class PortLedger:
    """The claims of all hosts, keyed by host address: two names of one machine share ports."""

    ephemeral_low: int
    claims: dict[str, list[Claim]] = field(default_factory=dict)

    def claim(self, address: str, claim: Claim) -> int:
        """Record a claim and return its first port. Raises InputError when it cannot be had."""
        if claim.last > 65535:
            raise InputError(
                f"{claim.purpose} on {address} needs port {claim.last}, the highest is 65535.",
                where=claim.setting,
            )
        if claim.last >= self.ephemeral_low:
            raise InputError(
                f"{claim.purpose} on {address} needs port {claim.last}, but from"
                f" {self.ephemeral_low} on the kernel hands ports out to anyone.",
                where=claim.setting,
                todo="choose a lower port, or raise ports.ephemeral_low if your hosts allow it "
                "(sysctl net.ipv4.ip_local_port_range)",
            )
        taken = self.claims.setdefault(address, [])
        for other in taken:
            if claim.first <= other.last and other.first <= claim.last:
                port = max(claim.first, other.first)
                raise InputError(
                    f"port {port} on {address} is used twice: by {other.purpose}"
                    f" ({other.setting}) and by {claim.purpose}.",
                    where=claim.setting,
                    todo="give one of the two another port",
                )
        taken.append(claim)
        return claim.first

    def reserve(self, address: str, claim: Claim) -> None:
        """Record what an engine takes at random: such ranges may overlap, and where they lie."""
        self.claims.setdefault(address, []).append(claim)

    def users(self, address: str, port: int) -> list[Claim]:
        """Who has claimed a port."""
        return [one for one in self.claims.get(address, []) if one.first <= port <= one.last]

    def common_free(self, addresses: Iterable[str], base: int, count: int) -> int:
        """The first of count ports at or after base that are free on all of these addresses."""
        taken = [one for address in set(addresses) for one in self.claims.get(address, [])]
        first = base
        for other in sorted(taken, key=lambda c: c.first):
            if first <= other.last and other.first <= first + count - 1:
                first = other.last + 1
        return first

    def next_free(self, address: str, base: int, count: int, purpose: str, setting: str) -> int:
        """Claim the first free run of count ports at or after base."""
        first = self.common_free([address], base, count)
        return self.claim(address, Claim(first, count, purpose, setting))


Setting = tuple[Union[str, int], ...]
# vLLM 0.9.0: rank 0's engine listens on the first for the engines of the other ranks, its worker on
# the next one for their workers (ParallelConfig.get_next_dp_init_port).
_MASTER = 2


@dataclass(frozen=True)
class GroupPorts:
    """Ports of an instance, on its master. ray: only used when it spans several hosts."""

    master: int
    ray: int


@dataclass(frozen=True)
class NodePorts:
    """First ports of a node: api and kv are the first of as many as it has servers.

    kv_base: first port of its instance's KV block there.
    listeners: what of all this the node really listens on.
    """

    api: int
    kv: int
    kv_base: int
    zmq: int
    hccl: int
    listeners: tuple[Listener, ...]


class Ports:
    """Hands out the ports of a configuration. Raises InputError when one is taken.

    notes: ports that stand twice on a machine, where one of the two is never listened on.
    """

    def __init__(self, config: Config, groups: list[Group]) -> None:
        self._config = config
        self._ports = config.settings.ports
        self._ledger = PortLedger(self._ports.ephemeral_low)
        self._told: dict[tuple[str, int, str], set[str]] = {}
        self._listeners: dict[tuple[str, int, int], list[Listener]] = {}
        self._reserve(groups)
        self._next_own: dict[tuple[str, str, str], int] = {}
        self._masters = {(g.role, g.index): self._master(g) for g in groups}
        self._apis = {_key(m): self._api(m, g) for g in groups for m in g.members}
        proxy = config.settings.topology.proxy
        if proxy is not None:
            address = config.settings.hosts[proxy].address
            self._claim(address, self._ports.proxy, 1, "the proxy", "ports", "proxy")
        self._kv_bases: dict[tuple[str, int, int], int] = {}
        self._groups = {(g.role, g.index): self._group(g) for g in groups}
        self._nodes = {_key(m): self._node(m) for g in groups for m in g.members}
        self.notes = [note for g in groups for note in self._unused_master(g)]

    def _reserve(self, groups: list[Group]) -> None:
        """What engines take at random on hosts with servers."""
        devices: dict[str, int] = {}
        for m in (m for group in groups for m in group.members):
            address = self._address(m)
            devices[address] = max(devices.get(address, 0), *m.devices, 0)
        for name, given in self._ports.random.items():
            for address, highest in devices.items():
                self._random(address, name, given, highest + 1, "ports", "random", name)
        workers = self._config.settings.ray.worker_ports
        for group in (g for g in groups if self._config.on_ray(g.role, g.index)):
            for m in group.members:
                self._random(
                    *(self._address(m), "Ray's workers", workers, len(m.devices)),
                    *("ray", "worker_ports"),
                )

    def _random(
        self, address: str, taker: str, given: RandomPorts, devices: int, *path: Union[str, int]
    ) -> None:
        last = given.last
        if last is None:
            last = given.first + devices * (given.per_device or 0) - 1
        purpose = f"what the engine takes at random ({taker})"
        claim = Claim(given.first, last - given.first + 1, purpose, self._where(path))
        self._ledger.reserve(address, claim)

    def group(self, group: Group) -> GroupPorts:
        """The ports of an instance's master."""
        return self._groups[group.role, group.index]

    def node(self, m: Member) -> NodePorts:
        """The ports of one host's part of an instance."""
        return self._nodes[_key(m)]

    def _master(self, group: Group) -> tuple[int, Setting]:
        """The master port of an instance and the setting that says it."""
        first = group.members[0]
        # As omni-infer numbers them: prefill is counted, each decode instance begins anew.
        number = 0 if group.role == "decode" else group.index
        port = self._ports.master_base + self._offset(group.role) + number
        path: Setting = ("ports", "master_base")
        if group.entry.master_port is not None:
            port = group.entry.master_port
            path = ("topology", group.role, group.index, "master_port")
        listens = self._has_master(group)
        if group.entry.master_port is None:
            port = self._after(first, "master", port, _MASTER if listens else 1)
        if listens:
            self._listen(first, "master", port, _MASTER, f"the master of {first.name}", path)
        return port, path

    def _after(self, m: Member, kind: str, first: int, count: int) -> int:
        """The first port from there on that no instance of the role has on this machine by itself.

        What somebody chose does not move them: that may clash, and is said.
        """
        key = self._address(m), m.role, kind
        first = max(first, self._next_own.get(key, 0))
        self._next_own[key] = first + count
        return first

    def _has_master(self, group: Group) -> bool:
        """With data-parallel size 1, vLLM listens on neither master nor rpc port."""
        return group.dp_size > 1 and self._is_told(group.members[0], "master_port")

    def _unused_master(self, group: Group) -> list[str]:
        """Notes for a master port that others use too, and that nothing listens on."""
        first = group.members[0]
        if self._has_master(group) or not self._is_told(first, "master_port"):
            return []
        port, path = self._masters[group.role, group.index]
        return [
            f"{self._where(path)}: port {port} on {self._address(first)} is also for"
            f" {other.purpose} ({other.setting}). That is no clash: {first.name} has data-parallel"
            " size 1, so nothing listens on its master port."
            for other in self._ledger.users(self._address(first), port)
        ]

    def _group(self, group: Group) -> GroupPorts:
        first, ray = group.members[0], self._ports.ray
        if self._config.on_ray(group.role, group.index):
            ray = self._next(first, "ray", "ray", 1, f"the Ray head of {first.name}")
        self._kv_block(group)
        return GroupPorts(self._masters[group.role, group.index][0], ray)

    def _kv_block(self, group: Group) -> None:
        """The first port of an instance's KV block on each of its hosts, the same if nobody says.

        Each worker listens on the first port + dp_rank x devices of a rank + its own among them
        (Mooncake's connectors of vllm-ascend; omni-infer's data links), on its own host; all of it
        is kept free on every one.
        """
        first, entry = group.members[0], group.entry
        place: Setting = ("topology", group.role, group.index)
        path: Setting = ("ports", "kv_block")
        base = self._ports.kv_block
        if entry.kv_port is not None:
            base, path = entry.kv_port, (*place, "kv_port")
        told = self._is_told(first, "kv_base")
        count = group.server_count * first.server_devices * self._ports.kv_block_per_device
        if told and entry.kv_port is None:
            base = self._ledger.common_free([self._address(m) for m in group.members], base, count)
        for m in group.members:
            own = entry.parts[m.host].kv_port if m.host in entry.parts else None
            here = path if own is None else (*place, "parts", m.host, "kv_port")
            self._kv_bases[_key(m)] = port = base if own is None else own
            if told:
                self._listen(m, "kv", port, count, f"the KV block of {m.name}", here)
                self._check_alone(m, here)

    def _check_alone(self, m: Member, path: Setting) -> None:
        """Replicas have rank 0 each: those of one host would listen on the same ports."""
        if m.servers == "replicas" and m.server_count > 1:
            raise InputError(
                f"the {m.server_count} servers of {m.name} are alone, and would all listen on the"
                " first ports of its KV block.",
                where=self._where(path),
                todo="list an instance for each, with devices of its own",
            )

    def _node(self, m: Member) -> NodePorts:
        ports = self._ports
        # Apart for each role: another prefill instance moves no port of decode.
        offset = self._offset(m.role)
        kv, zmq, hccl = ports.kv_side_channel + offset, ports.zmq, ports.hccl_base
        if m.role != "colocated" and m.server_count and self._is_told(m, "kv_port"):
            purpose = f"the KV side channel of {m.name}"
            kv = self._next(m, "kv", "kv_side_channel", m.server_count, purpose, offset)
        # omni-infer's connector listens in the first worker of a prefill instance alone.
        if m.role == "prefill" and m.node_rank == 0 and self._is_told(m, "zmq_port"):
            zmq = self._next(m, "zmq", "zmq", 1, f"the ZMQ messages of {m.name}")
        if self._config.settings.engine.device_kind == "npu" and self._is_told(m, "hccl_base"):
            hccl = self._next(m, "hccl", "hccl_base", ports.hccl_span, f"HCCL of {m.name}")
        key = _key(m)
        listeners = tuple(self._listeners[key])
        return NodePorts(self._apis[key], kv, self._kv_bases[key], zmq, hccl, listeners)

    def _api(self, m: Member, group: Group) -> int:
        rank = m.node_rank if m.role == "decode" else m.index
        port = self._ports.api_base + self._offset(m.role) + rank
        path: Setting = ("ports", "api_base")
        entry, here = group.entry, ("topology", m.role, m.index)
        own = entry.parts[m.host].api_port if m.host in entry.parts else None
        for given, place in (
            (entry.api_port, (*here, "api_port")),
            (self._config.settings.hosts[m.host].api_port, ("hosts", m.host, "api_port")),
            (own, (*here, "parts", m.host, "api_port")),
        ):
            if given is not None:
                port, path = given, place
        if path == ("ports", "api_base"):
            port = self._after(m, "api", port, m.server_count)
        self._listeners.setdefault(_key(m), [])
        if m.server_count:
            self._listen(m, "api", port, m.server_count, f"the API of {m.name}", path)
        return port

    def _offset(self, role: str) -> int:
        return int(getattr(self._ports.offset, role))

    def _address(self, m: Member) -> str:
        return self._config.settings.hosts[m.host].address

    def _is_told(self, m: Member, fact: str) -> bool:
        """Whether a server's settings refer to a planned port: what is not told is not opened.

        A number in its place opens one too; overrides sees whether it is the planned one.
        """
        if m.key not in self._told:
            shipped = self._config.shipped_server(m.role, m.index)
            replaced = [] if shipped is None else replaced_by(m.settings, shipped)
            self._told[m.key] = references([m.settings.plain(), *replaced])
        return fact in self._told[m.key]

    def _where(self, path: Setting) -> str:
        return f"{self._config.origin(*path)}: {'.'.join(map(str, path))}"

    def _listen(
        self, m: Member, kind: str, first: int, count: int, purpose: str, path: Setting
    ) -> None:
        self._claim(self._address(m), first, count, purpose, *path)
        self._record(m, Listener(kind, first, count, purpose))

    def _record(self, m: Member, listener: Listener) -> None:
        self._listeners.setdefault(_key(m), []).append(listener)

    def _claim(
        self, address: str, first: int, count: int, purpose: str, *path: Union[str, int]
    ) -> None:
        self._ledger.claim(address, Claim(first, count, purpose, self._where(path)))

    def _next(
        self, m: Member, kind: str, name: str, count: int, purpose: str, offset: int = 0
    ) -> int:
        base = int(getattr(self._ports, name)) + offset
        where = self._where(("ports", name))
        first = self._ledger.next_free(self._address(m), base, count, purpose, where)
        self._record(m, Listener(kind, first, count, purpose))
        return first


def _key(m: Member) -> tuple[str, int, int]:
    return m.role, m.index, m.node_rank


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
    size = m.server_devices
    whole = m.servers == "instance"
    return {
        "name": m.name if m.server_count < 2 else f"{m.name}.{k}",
        "local_rank": k,
        "dp_rank": m.server_offset + k if m.servers == "ranks" else 0,
        "devices": m.devices if whole else m.devices[k * size : (k + 1) * size],
        "api_port": ports.api + k,
        "kv_port": ports.kv + k,
    }


def server_facts(plan: dict[str, Any], offset: int, dp_size: int) -> dict[str, Any]:
    """What a server's words may refer to beyond its node's facts.

    external_dp_rank: null where the server is alone, as external_dp_size is: vLLM takes neither.
    """
    made = {name: plan[name] for name in ("local_rank", "dp_rank", "api_port", "kv_port")}
    made["external_dp_rank"] = plan["dp_rank"] if dp_size > 1 else None
    made["offset_rank"] = plan["local_rank"] + offset
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
