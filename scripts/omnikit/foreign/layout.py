"""What other tools' files say, in one shape, and that shape as a tree of our settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from hostkit.base.errors import InputError
from omnikit.yaml.located import Node, Origin

# The toolkit's profile for these formats: they belong to omni-infer of the install guide.
PROFILE = {"engine": "ascend", "omni_version": "v0.4.1", "model": "deepseek-r1-w8a8"}
PROXY_HOST = "c0"


@dataclass
class Host:
    """A machine. settings: user, private_key, … of our hosts section."""

    name: str
    address: Node
    settings: dict[str, Node]
    nodes: list[str] = field(default_factory=list)


@dataclass
class Member:
    """One host's part of an instance. label: how messages name it; node_name: its own name.

    part: the host has other instances too, so that nothing of this one is the host's own. exact:
    the toolkit wrote it, so that all of it is said of the part. server: of the whole instance.
    """

    host: Host
    label: str
    where: Origin
    master_port: Node
    api_port: Node
    devices: Node
    node_name: Optional[str] = None
    part: bool = False
    exact: bool = False
    server: Optional[Node] = None


@dataclass
class Layout:
    """Everything of a file. prefill: instances in the order of kv_rank; of each, the master first.

    notes: what was in the file and has no effect here, with its place. name: of the environment;
    machines: their names in order, where the toolkit wrote the file. profile: engine, release and
    model that the settings are for.
    """

    source: str
    layer: int
    hosts: dict[str, Host] = field(default_factory=dict)
    prefill: list[list[Member]] = field(default_factory=list)
    decode: list[list[Member]] = field(default_factory=list)
    colocated: list[list[Member]] = field(default_factory=list)
    proxy: Optional[Host] = None
    proxy_port: Optional[Node] = None
    settings: dict[tuple[str, ...], Node] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    name: Optional[str] = None
    machines: list[str] = field(default_factory=list)
    profile: dict[str, str] = field(default_factory=lambda: dict(PROFILE))

    @property
    def instances(self) -> list[list[Member]]:
        """All of them."""
        return [*self.prefill, *self.decode, *self.colocated]

    def host(
        self,
        name: str,
        address: Node,
        settings: dict[str, Node],
        label: str,
        machine: Optional[str] = None,
    ) -> Host:
        """The machine of an address, one entry however often it occurs. Raises InputError.

        machine: its name, where the toolkit wrote the file; else it is called as its first node.
        """
        known = self.hosts.setdefault(
            machine or str(address.value), Host(machine or name, address, {})
        )
        for key, node in settings.items():
            other = known.settings.setdefault(key, node)
            if other.plain() == node.plain():
                continue
            if label == "the proxy":
                self.notes.append(
                    f"{node.origin}: {key} of the proxy is not used: {known.name} is the same host,"
                    f" and {other.origin} says how it is reached"
                )
                continue
            raise InputError(
                f"{key} of {label} differs from what {other.origin} says for the same host"
                f" ({address.value}).",
                where=str(node.origin),
                todo="give the host the same login in both places",
            )
        return known

    def tree(self) -> Node:
        """The settings of an environment, or of a file without one. Raises InputError."""
        origin = Origin(self.source, 0, self.layer)
        made = Node({}, origin)
        if self.hosts:
            self._environment(made, origin)
        for path, node in self.settings.items():
            _put(made, path, node)
        made.notes, made.name = tuple(dict.fromkeys(self.notes)), self.name
        return made

    def _environment(self, made: Node, origin: Origin) -> None:
        self._check_masters()
        profile = Origin(f"{self.source} (profile of imported files)", 0, self.layer)
        for key, value in self.profile.items():
            _put(made, ("profile", key), Node(value, profile))
        for instance in self.instances:
            self._overrides(instance)
        order = {name: k for k, name in enumerate(self.machines)}
        machines = sorted(self.hosts.values(), key=lambda host: order.get(host.name, len(order)))
        hosts = {host.name: _map(self._host_settings(host)) for host in machines}
        _put(made, ("hosts",), Node(hosts, origin, whole=True))
        topology = {
            role: Node([self._instance(part) for part in parts], _where(parts) or origin)
            for role, parts in (
                ("prefill", self.prefill),
                ("decode", self.decode),
                ("colocated", self.colocated),
            )
        }
        topology["proxy"] = Node(None, origin)
        if self.proxy is not None:
            where = self.proxy_port.origin if self.proxy_port else self.proxy.address.origin
            topology["proxy"] = Node(self.proxy.name, where)
        _put(made, ("topology",), Node(topology, origin, whole=True))
        if self.proxy_port is not None:
            _put(made, ("ports", "proxy"), self.proxy_port)

    def _host_settings(self, host: Host) -> dict[str, Node]:
        return {"address": host.address, **host.settings}

    def _instance(self, members: list[Member]) -> Node:
        first = members[0]
        names = [Node(m.host.name, m.host.address.origin) for m in members]
        made = {
            "hosts": Node(names, first.where),
            "devices": first.devices,
            "api_port": first.api_port,
            "master_port": first.master_port,
        }
        if first.server is not None:
            made["server"] = first.server
        parts = {m.host.name: _map(own) for m in members if (own := self._own(m, first)) and m.part}
        return _map({**made, "parts": _map(parts)} if parts else made)

    def _own(self, m: Member, first: Member) -> dict[str, Node]:
        """What a member has that its master has not."""
        if m.exact:
            name = Node(m.node_name, m.where)
            return {"devices": m.devices, "api_port": m.api_port, "node_name": name}
        own = {"devices": m.devices} if m.devices.value != first.devices.value else {}
        # Of a prefill instance, only the master has an API.
        decode = any(first is members[0] for members in self.decode)
        if decode and m.api_port.value != first.api_port.value:
            own["api_port"] = m.api_port
        if m.node_name is not None:
            own["node_name"] = Node(m.node_name, m.where)
        return own

    def _overrides(self, members: list[Member]) -> None:
        """What differs from the master's is a setting of the host that it has for itself."""
        all_members = [m for part in self.instances for m in part]
        for m in members:
            m.part = m.exact or any(o.host is m.host for o in all_members if o is not m)
            if not m.part:
                m.host.settings.update(self._own(m, members[0]))

    def _check_masters(self) -> None:
        for members in self.instances:
            first = members[0]
            for m in members[1:]:
                if m.master_port.value != first.master_port.value:
                    raise InputError(
                        f"the master port of {m.label} is {m.master_port.value}, that of its"
                        f" master {first.label} is {first.master_port.value}"
                        f" ({first.master_port.origin}).",
                        where=str(m.master_port.origin),
                        todo="all hosts of an instance join the master's port: remove this one",
                    )
                if any(m.host is other.host for other in members if other is not m):
                    raise InputError(
                        f"{m.label} is on the host {m.host.address.value}, which is in this"
                        " instance already.",
                        where=str(m.where),
                        todo="name a host once and give it all its devices",
                    )


def _where(instances: list[list[Member]]) -> Optional[Origin]:
    return instances[0][0].where if instances else None


def _map(entries: dict[str, Node]) -> Node:
    first = next(iter(entries.values())).origin
    return Node(dict(entries), first, {key: node.origin for key, node in entries.items()})


def _put(tree: Node, path: tuple[str, ...], node: Node) -> None:
    here = tree
    for step in path[:-1]:
        value: dict[str, Any] = here.value
        if step not in value:
            value[step] = Node({}, node.origin)
            here.key_origins[step] = node.origin
        here = value[step]
    here.value[path[-1]] = node
    here.key_origins[path[-1]] = node.origin
