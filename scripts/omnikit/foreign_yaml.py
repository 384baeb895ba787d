"""Files of other tools as located trees: YAML as those tools read it, every value with its line.

More lenient than our own files: aliases, merge keys and YAML 1.1's words (yes, 010) mean what they
mean to PyYAML. Values of keys that hold a password, or that a vault encrypted, are hidden at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from omnikit import foreign_vault
from omnikit.errors import InputError
from omnikit.hidden import Hidden
from omnikit.located import Node, Origin
from omnikit.strict_yaml import compose

_DEEPEST = 60
# Aliases can make a small file huge.
_MOST = 200_000
_RESOLVER: Any = yaml.resolver.Resolver()
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
_CONSTRUCTED = ("int", "bool", "null", "float")
_PREFIX = "tag:yaml.org,2002:"


def read(text: str, source: str, layer: int) -> Node:
    """YAML text to a tree. Raises InputError: source:line."""
    tree = compose(text, source, secret="pass" in text.lower())
    return _Reader(source, layer).node(tree)


def is_secret(key: str) -> bool:
    """Whether a key of these files holds a password: password, ansible_ssh_pass, …"""
    return "pass" in key.lower()


@dataclass
class _Reader:
    source: str
    layer: int
    count: int = 0

    def origin(self, tree: Any) -> Origin:
        return Origin(self.source, tree.start_mark.line + 1, self.layer)

    def node(self, tree: Any, depth: int = 0, secret: bool = False) -> Node:
        origin = self.origin(tree)
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST:
            raise InputError("the file is nested too deeply or too large.", where=str(origin))
        if tree.tag == "!vault" and isinstance(tree, yaml.ScalarNode):
            return Node(Hidden(foreign_vault.decrypt(tree.value, str(origin))), origin)
        if not tree.tag.startswith(_PREFIX) and tree.tag != "!unsafe":
            raise InputError(
                f"the YAML tag {tree.tag[:40]} is not read here.",
                where=str(origin),
                todo="write a plain value",
            )
        if isinstance(tree, yaml.MappingNode):
            return self.map(tree, origin, depth)
        if isinstance(tree, yaml.SequenceNode):
            return Node([self.node(child, depth + 1, secret) for child in tree.value], origin)
        if secret and tree.value:
            return Node(Hidden(tree.value), origin)
        return Node(tree.value if tree.style else _plain(tree.value), origin)

    def map(self, tree: Any, origin: Origin, depth: int) -> Node:
        made = Node({}, origin)
        below: list[Node] = []
        for key_tree, child in tree.value:
            where = self.origin(key_tree)
            if not isinstance(key_tree, yaml.ScalarNode):
                raise InputError("a key must be a plain word.", where=str(where))
            key = key_tree.value
            if key == "<<":
                merged = child.value if isinstance(child, yaml.SequenceNode) else [child]
                below += [self.node(part, depth + 1) for part in merged]
                continue
            if key in made.value:
                raise InputError(
                    f"the key {key!r} stands twice, first on line {made.key_origins[key].line}.",
                    where=str(where),
                    todo="keep one of the two",
                )
            made.value[key] = self.node(child, depth + 1, is_secret(key))
            made.key_origins[key] = where
        for part in below:
            for key, child in part.value.items() if isinstance(part.value, dict) else ():
                if key not in made.value:
                    made.value[key] = child
                    made.key_origins[key] = part.key_origins[key]
        return made


def _plain(text: str) -> Any:
    """An unquoted word as PyYAML reads it."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag[len(_PREFIX) :] not in _CONSTRUCTED:
        return text
    try:
        return _CONSTRUCTOR.construct_object(yaml.ScalarNode(tag, text))
    except ValueError:
        return text
