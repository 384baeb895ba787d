"""What other tools' files say, in one shape, and that shape as a tree of our settings, and as an
environment file of ours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Iterator, Optional, Union

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.yaml.node import Node, Origin
from omnikit.yaml.strict_yaml import reads_as_text

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


# Kept in the home of whoever deploys: it must be nobody else's, and in no repository.
SECRETS_DIR = "~/.omnikit/secrets"
# Characters that mean nothing to YAML wherever they stand.
_HARMLESS = re.compile(r"[A-Za-z0-9/~.][A-Za-z0-9/~._+@-]*")


@dataclass(frozen=True)
class Left:
    """A password that was left where it was. file: where the environment looks for it."""

    hosts: tuple[str, ...]
    origin: Origin
    file: str

    @property
    def command(self) -> str:
        """What asks for the password and keeps it in its file, readable for its owner alone."""
        return (
            f"( umask 077; mkdir -p {SECRETS_DIR}; read -rsp 'password: ' P;"
            f' printf %s "$P" > {self.file} )'
        )


def left_out(tree: Node) -> list[Left]:
    """The passwords of a tree, which are never written: one for all hosts that have the same."""
    hosts: dict[str, list[str]] = {}
    first: dict[str, Left] = {}
    for name, node in tree.value["hosts"].value.items():
        found = node.value.get("password")
        if found is not None and isinstance(found.value, Hidden):
            secret = found.value.reveal()
            hosts.setdefault(secret, []).append(name)
            file = f"{SECRETS_DIR}/{node.value['address'].value}"
            first.setdefault(secret, Left((), found.origin, file))
    return [Left(tuple(names), first[s].origin, first[s].file) for s, names in hosts.items()]


def environment(tree: Node, source: str, kind: str) -> str:
    """The text of the environment file; a comment behind each value says where it came from."""
    files = {name: left for left in left_out(tree) for name in left.hosts}
    lines = [
        f"# Imported from {source}, {_article(kind)}.",
        "# The comment behind a value is the place that it came from.",
    ]
    for key, node in tree.value.items():
        if key == "hosts":
            lines += ["", "hosts:"]
            for name, host in node.value.items():
                lines.append(f"  {_word(name)}:")
                for part, value in host.value.items():
                    if part == "password" and name in files:
                        lines += list(_secret(files[name], name, value.origin))
                    else:
                        lines += list(_entry(part, value, 4))
        elif key == "profile":
            words = ", ".join(f"{k}: {_word(v.value)}" for k, v in node.value.items())
            lines.append(f"profile: {{{words}}}")
        else:
            lines += ["", *_entry(key, node, 0)]
    return "\n".join(lines) + "\n"


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOUaeiou" else f"a {kind}"


def _secret(left: Left, host: str, origin: Origin) -> Iterator[str]:
    if host == left.hosts[0]:
        yield "    # The password was not copied. In bash, this asks for it and keeps it there:"
        yield f"    #   {left.command}"
    yield f"    password: {{file: {left.file}}}{_comment(origin)}"


def _entry(key: str, node: Node, indent: int) -> Iterator[str]:
    pad = " " * indent
    if isinstance(node.value, dict) and node.value:
        yield f"{pad}{_word(key)}:"
        for child, value in node.value.items():
            yield from _entry(child, value, indent + 2)
    elif isinstance(node.value, list) and any(isinstance(n.value, dict) for n in node.value):
        yield f"{pad}{_word(key)}:"
        for item in node.value:
            first = True
            for child, value in item.value.items():
                for line in _entry(child, value, indent + 4):
                    yield f"{pad}  - {line[indent + 4 :]}" if first else line
                    first = False
    else:
        yield f"{pad}{_word(key)}: {_flow(node)}{_comment(node.origin)}"


def _flow(node: Node) -> str:
    if isinstance(node.value, list):
        return f"[{', '.join(_flow(child) for child in node.value)}]"
    return "{}" if node.value == {} else _word(node.value)


def _word(value: Union[str, int, bool, None]) -> str:
    if isinstance(value, str):
        plain = _HARMLESS.fullmatch(value) and reads_as_text(value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _comment(origin: Origin) -> str:
    if not origin.line:
        return ""
    return f"  # {PurePath(origin.source).name}:{origin.line}"
