"""Groups, hosts and variables of a YAML inventory, merged as Ansible merges them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterator

from omnikit.errors import InputError
from omnikit.foreign_values import unknown, wrong
from omnikit.located import Node, Origin

_KEYS = ("hosts", "vars", "children")
_RANGE = re.compile(r"\[[0-9a-zA-Z]+:[0-9a-zA-Z:]+\]")


@dataclass
class Group:
    """One group, from all places that speak of it."""

    origin: Origin
    vars: dict[str, Node] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


@dataclass
class Inventory:
    """Everything of an inventory. host_vars and origins: by host name."""

    groups: dict[str, Group] = field(default_factory=dict)
    host_vars: dict[str, dict[str, Node]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def hosts(self, group: str) -> list[str]:
        """The hosts of a group and of the groups in it, in the order of the file."""
        return list(dict.fromkeys(self._hosts(group, ())))

    def _hosts(self, group: str, above: tuple[str, ...]) -> Iterator[str]:
        found = self.groups.get(group)
        if found is None or group in above:
            return
        yield from found.hosts
        for child in found.children:
            yield from self._hosts(child, (*above, group))

    def groups_of(self, host: str) -> list[str]:
        """The groups of a host, the more general first, as their variables override each other."""
        mine = [name for name in self.groups if name == "all" or host in self.hosts(name)]
        return sorted(mine, key=lambda name: (self._depth(name, ()), name))

    def _depth(self, group: str, below: tuple[str, ...]) -> int:
        if group == "all" or group in below:
            return 0
        parents = [name for name, found in self.groups.items() if group in found.children]
        return 1 + max((self._depth(name, (*below, group)) for name in parents), default=0)

    def variables(self, host: str) -> dict[str, Node]:
        """A host's variables: its own over its groups' over those of all."""
        merged: dict[str, Node] = {}
        for name in self.groups_of(host):
            merged.update(self.groups[name].vars)
        merged.update(self.host_vars[host])
        return merged


def collect(tree: Node) -> Inventory:
    """The inventory of a file. Raises InputError."""
    made = Inventory()
    for name, node in tree.value.items():
        _collect(made, name, node, tree.key_origins[name])
    return made


def _collect(made: Inventory, name: str, node: Node, origin: Origin) -> None:
    group = made.groups.setdefault(name, Group(origin))
    for key, child in _entries(node, f"the group {name}").items():
        if key not in _KEYS:
            raise unknown(node, key, f"the group {name}", _KEYS)
        for entry, value in _entries(child, f"{key} of the group {name}").items():
            where = child.key_origins[entry]
            if key == "vars":
                group.vars[entry] = value
            elif key == "children":
                group.children.append(entry)
                _collect(made, entry, value, where)
            else:
                _host(made, group, entry, value, where)


def _host(made: Inventory, group: Group, name: str, node: Node, where: Origin) -> None:
    if _RANGE.search(name):
        raise InputError(
            f"the host range {name} is not read here.",
            where=str(where),
            todo="write each host out; ansible-inventory -i FILE --list --yaml does it for you",
        )
    group.hosts.append(name)
    made.origins.setdefault(name, where)
    made.host_vars.setdefault(name, {}).update(_entries(node, f"the host {name}"))


def _entries(node: Node, label: str) -> dict[str, Node]:
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise wrong(node, label, "a map (name: value)", "is a colon missing, or a dash too many?")
    found: dict[str, Node] = node.value
    return found
