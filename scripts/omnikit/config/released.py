"""What a release of an engine changed in settings that others wrote: new names, and what is gone.

A model's file, and the user's, are written once and hold for several releases; a version's file
says what its release calls otherwise (release.renamed) and has no use for (release.without).
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from hostkit.base.errors import InputError
from omnikit.config.layers import ENGINE, dotted, merge, same_flag
from omnikit.yaml.located import Node, Origin


def as_released(chosen: Sequence[Node], given: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The files of engine, version and model, and the user's layers, as the release has them.

    Variables get their new names everywhere; what the release has no use for is left out of the
    model's file alone: what a user asks for stays. Raises InputError.
    """
    known = Node({}, Origin("", 0, ENGINE))
    for tree in [*chosen, *given]:
        known = merge(known, tree)
    renamed = _map(known, "renamed")
    made = [_renamed(tree, renamed) for tree in chosen]
    for path in _paths(known):
        made[-1] = _without(made[-1], path)  # the model's is the highest
    return made, [_renamed(tree, renamed) for tree in given]


def _map(known: Node, name: str) -> dict[str, str]:
    node = known.find(("release", name))
    plain = node.plain() if node is not None else None
    return plain if isinstance(plain, dict) else {}  # else the schema says what is wrong


def _paths(known: Node) -> list[list[str]]:
    node = known.find(("release", "without"))
    made = []
    for child in node.value if node is not None and isinstance(node.value, list) else []:
        steps = dotted(str(child.value))
        if not steps:
            raise InputError(
                f"release.without: found {str(child.value)[:80]!r}, expected section.key.",
                where=str(child.origin),
                todo="for example: roles.decode.server.args.max-num-seqs",
            )
        made.append(steps)
    return made


def _renamed(tree: Node, names: Mapping[str, str]) -> Node:
    """A tree whose variables (all maps called env) have their new names."""
    if not names or not isinstance(tree.value, (dict, list)):
        return tree
    if isinstance(tree.value, list):  # of instances, which may have settings of their own
        return Node([_renamed(child, names) for child in tree.value], tree.origin)
    value: dict[str, Any] = {}
    for key, child in tree.value.items():
        if key == "env" and isinstance(child.value, dict):
            value[key] = _with_names(child, names)
        else:
            value[key] = _renamed(child, names)
    return Node(value, tree.origin, dict(tree.key_origins), tree.whole, tree.notes, tree.name)


def _with_names(env: Node, names: Mapping[str, str]) -> Node:
    made = Node({}, env.origin, {}, env.whole)
    for key, child in env.value.items():
        name = names.get(key, key)
        if name != key and name in env.value:
            continue  # the new name says it already
        made.value[name] = child
        made.key_origins[name] = env.key_origins.get(key, child.origin)
    return made


def _without(tree: Node, path: Sequence[str]) -> Node:
    """A tree without the setting at a path; flags in either spelling."""
    if not isinstance(tree.value, dict):
        return tree
    value = dict(tree.value)
    for key in tree.value:
        if same_flag(key) != same_flag(path[0]):
            continue
        if len(path) == 1:
            del value[key]
        else:
            value[key] = _without(value[key], path[1:])
    return Node(value, tree.origin, dict(tree.key_origins), tree.whole, tree.notes, tree.name)
