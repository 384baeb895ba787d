"""What other tools' files say, in one shape, and that shape as a tree of our settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from omnikit.errors import InputError
from omnikit.located import Node, Origin
from omnikit.setting_types import parse_devices

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
    """One host's part of an instance. label: how messages name it; node_name: its own name."""

    host: Host
    label: str
    where: Origin
    master_port: Node
    api_port: Node
    devices: Node
    node_name: Optional[str] = None


@dataclass
class Layout:
    """Everything of a file. instances: of prefill, in the order of kv_rank; master first.

    notes: what was in the file and has no effect here, with its place.
    """

    source: str
    layer: int
    hosts: dict[str, Host] = field(default_factory=dict)
    prefill: list[list[Member]] = field(default_factory=list)
    decode: list[Member] = field(default_factory=list)
    proxy: Optional[Host] = None
    proxy_port: Optional[Node] = None
    settings: dict[tuple[str, ...], Node] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def host(self, name: str, address: Node, settings: dict[str, Node], label: str) -> Host:
        """The machine of an address, one entry however often it occurs. Raises InputError."""
        known = self.hosts.setdefault(str(address.value), Host(name, address, {}))
        for key, node in settings.items():
            other = known.settings.setdefault(key, node)
            if other.value == node.value:
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
        """The settings of an environment. Raises InputError."""
        self._check_masters()
        self._check_proxy_port()
        origin = Origin(self.source, 0, self.layer)
        profile = Origin(f"{self.source} (profile of imported files)", 0, self.layer)
        made = Node({}, origin)
        for key, value in PROFILE.items():
            _put(made, ("profile", key), Node(value, profile))
        for instance in [*self.prefill, self.decode]:
            self._overrides(instance)
        hosts = {host.name: _map(self._host_settings(host)) for host in self.hosts.values()}
        _put(made, ("hosts",), Node(hosts, origin, whole=True))
        first = self.prefill[0][0].where
        topology = {
            "prefill": Node([self._instance(part) for part in self.prefill], first),
            "decode": Node([self._instance(self.decode)], self.decode[0].where),
            "colocated": Node([], origin),
        }
        if self.proxy is not None:
            where = self.proxy_port.origin if self.proxy_port else self.proxy.address.origin
            topology["proxy"] = Node(self.proxy.name, where)
        _put(made, ("topology",), Node(topology, origin, whole=True))
        if self.proxy_port is not None:
            _put(made, ("ports", "proxy"), self.proxy_port)
        for path, node in self.settings.items():
            _put(made, path, node)
        return made

    def _host_settings(self, host: Host) -> dict[str, Node]:
        return {"address": host.address, **host.settings}

    def _instance(self, members: list[Member]) -> Node:
        first = members[0]
        names = [Node(m.host.name, m.host.address.origin) for m in members]
        return _map(
            {
                "hosts": Node(names, first.where),
                "devices": first.devices,
                "api_port": first.api_port,
                "master_port": first.master_port,
            }
        )

    def _overrides(self, members: list[Member]) -> None:
        """What differs from the master's is a setting of the host, which has but one of each."""
        all_members = [m for part in [*self.prefill, self.decode] for m in part]
        for m in members:
            others = [o for o in all_members if o.host is m.host and o is not m]
            own = {"devices": (m.devices, members[0].devices)}
            if members is self.decode:  # of a prefill instance, only the master has an API
                own["api_port"] = (m.api_port, members[0].api_port)
            for key, (node, masters) in own.items():
                if node.value == masters.value:
                    continue
                if others:
                    raise InputError(
                        f"{key} of {m.label} differs from its master's, and {others[0].label} is"
                        " on the same host: which of the two is meant cannot be said here.",
                        where=str(node.origin),
                        todo="give all hosts of the instance the same, or use another host",
                    )
                m.host.settings[key] = node
            if m.node_name is not None and not others:
                m.host.settings["node_name"] = Node(m.node_name, m.where)

    def _check_masters(self) -> None:
        for members in [*self.prefill, self.decode]:
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

    def _check_proxy_port(self) -> None:
        """The shipped omni_infer_deployment.yml has 8080 for both: say so clearly."""
        if self.proxy is None or self.proxy_port is None:
            return
        port = self.proxy_port.value
        for members in [*self.prefill, self.decode]:
            for m in members:
                if m.host is not self.proxy:
                    continue
                count = len(parse_devices(m.devices.value)) if members is self.decode else 1
                used = [("API", m.api_port, count)]
                if m is members[0]:
                    used.append(("master", m.master_port, 1))
                for what, node, ports in used:
                    if node.value <= port < node.value + ports:
                        raise InputError(
                            f"the proxy listens on port {port} of {m.host.address.value}, which is"
                            f" also the {what} port of {m.label} ({node.origin}).",
                            where=str(self.proxy_port.origin),
                            todo="give the proxy a port of its own, for example 7000 (the template"
                            " of omni_infer_deployment.yml has 8080 for both)",
                        )


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
