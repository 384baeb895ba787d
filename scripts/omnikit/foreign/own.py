"""What the toolkit adds to an inventory that it exports, so that it reads back as the same plan.

The documented variables say who serves what where; these say the rest. Both directions are here.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator

from omnikit.yaml import redact
from omnikit.yaml.node import Node, Origin

ENVIRONMENT = "omnikit_environment"  # its name
SETTINGS = "omnikit_settings"  # all settings but hosts and topology, by layer
MACHINES = "omnikit_machines"  # names of the machines, in their order
MACHINE = "omnikit_machine"  # the one behind an entry
HOST = "omnikit_host"  # settings of the machine that Ansible has no variables for
HOST_SERVER = "omnikit_host_server"  # server settings of the machine, by layer
SERVER = "omnikit_server"  # server settings of the instance, by layer
DEVICES = "omnikit_devices"  # devices that do not count up by one, or none

# A layer above another wins even where it is less specific: settings keep the layer they came from.
_LAYERS = ("environment", "site", "variables", "options")

Leaf = tuple[tuple[str, ...], Node]


def by_layer(leaves: Iterable[Leaf], lowest: int) -> dict[str, Any]:
    """Settings from the layer lowest on, as data. What looks like a secret is left out."""
    made: dict[str, Any] = {}
    for path, node in leaves:
        if node.origin.layer < lowest or is_secret(path, node):
            continue
        here = made.setdefault(_LAYERS[node.origin.layer - lowest], {})
        for step in path[:-1]:
            here = here.setdefault(step, {})
        here[path[-1]] = node.plain()
    return made


def is_secret(path: tuple[str, ...], node: Node) -> bool:
    """Whether a setting must not be written down."""
    plain = node.plain()
    return bool(redact.setting(path, plain) != plain)


def settings(node: Node, lowest: int) -> Iterator[Leaf]:
    """The settings that by_layer made data of, each in its layer."""
    for number, name in enumerate(_LAYERS):
        part = node.child(name)
        if part is not None:
            yield from _layered(part, lowest + number).leaves()


def tree(node: Node, lowest: int) -> Node:
    """The same as one tree, which must not be empty."""
    made = Node({}, node.origin)
    for path, leaf in settings(node, lowest):
        here = made
        for step in path[:-1]:
            here = here.value.setdefault(step, Node({}, leaf.origin))
        here.value[path[-1]] = leaf
    return made


def _layered(node: Node, layer: int) -> Node:
    origin = Origin(node.origin.source, node.origin.line, layer)
    if isinstance(node.value, dict):
        return Node({key: _layered(child, layer) for key, child in node.value.items()}, origin)
    if isinstance(node.value, list):
        return Node([_layered(child, layer) for child in node.value], origin)
    return Node(node.value, origin)
