"""Which port everything uses: bases, offsets and overrides, each claimed once on its machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from omnikit.config import Config
from omnikit.port_ledger import Claim, PortLedger
from omnikit.topology_members import Group, Member


@dataclass(frozen=True)
class GroupPorts:
    """Ports of an instance, on its master. ray: only claimed when it spans several hosts."""

    master: int
    ray: int


@dataclass(frozen=True)
class NodePorts:
    """First ports of a node: api and kv are the first of as many as it has servers."""

    api: int
    kv: int
    zmq: int
    hccl: int


class Ports:
    """Hands out the ports of a configuration. Raises InputError when one is taken."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ports = config.settings.ports
        self._ledger = PortLedger(self._ports.ephemeral_low)

    def group(self, group: Group) -> GroupPorts:
        """Claim the ports of an instance's master."""
        ports, first = self._ports, group.members[0]
        address = self._address(first)
        base = ports.master_base + self._offset(group.role) + group.index
        port = group.entry.master_port
        setting: tuple[Union[str, int], ...] = ("ports", "master_base")
        if port is not None:
            setting = ("topology", group.role, group.index, "master_port")
        purpose = f"the master of {first.name}"
        master = self._claim(address, base if port is None else port, 1, purpose, *setting)
        ray = ports.ray
        if len(group.members) > 1 and group.role != "decode":
            ray = self._next(address, "ray", 1, f"the Ray head of {first.name}")
        return GroupPorts(master, ray)

    def node(self, m: Member, group: Group) -> NodePorts:
        """Claim the ports of one host's part of an instance."""
        ports, address = self._ports, self._address(m)
        api = self._api(m, group)
        kv, zmq, hccl = ports.kv_side_channel, ports.zmq, ports.hccl_base
        if m.role != "colocated":
            count = max(m.server_count, 1)
            # Apart for each role: another prefill instance moves no port of decode.
            purpose, offset = f"the KV side channel of {m.name}", self._offset(m.role)
            kv = self._next(address, "kv_side_channel", count, purpose, offset)
            zmq = self._next(address, "zmq", 1, f"the ZMQ messages of {m.name}")
        if self._config.settings.engine.device_kind == "npu":
            hccl = self._next(address, "hccl_base", ports.hccl_span, f"HCCL of {m.name}")
        return NodePorts(api, kv, zmq, hccl)

    def proxy(self, address: str) -> int:
        """Claim the proxy's port."""
        return self._claim(address, self._ports.proxy, 1, "the proxy", "ports", "proxy")

    def _api(self, m: Member, group: Group) -> int:
        rank = m.node_rank if m.role == "decode" else m.index
        port = self._ports.api_base + self._offset(m.role) + rank
        setting: tuple[Union[str, int], ...] = ("ports", "api_base")
        for given, path in (
            (group.entry.api_port, ("topology", m.role, m.index, "api_port")),
            (self._config.settings.hosts[m.host].api_port, ("hosts", m.host, "api_port")),
        ):
            if given is not None:
                port, setting = given, path
        if m.server_count:
            self._claim(self._address(m), port, m.server_count, f"the API of {m.name}", *setting)
        return port

    def _offset(self, role: str) -> int:
        return int(getattr(self._ports.offset, role))

    def _address(self, m: Member) -> str:
        return self._config.settings.hosts[m.host].address

    def _claim(
        self, address: str, first: int, count: int, purpose: str, *setting: Union[str, int]
    ) -> int:
        shown = ".".join(str(step) for step in setting)
        where = f"{self._config.origin(*setting)}: {shown}"
        return self._ledger.claim(address, Claim(first, count, purpose, where))

    def _next(self, address: str, name: str, count: int, purpose: str, offset: int = 0) -> int:
        base = int(getattr(self._ports, name)) + offset
        where = f"{self._config.origin('ports', name)}: ports.{name}"
        return self._ledger.next_free(address, base, count, purpose, where)
