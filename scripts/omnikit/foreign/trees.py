"""Files of other tools as located trees: YAML and JSON as those tools read it, each with its line.

YAML is read more leniently than our own files: aliases, merge keys and words of YAML 1.1 (yes, 010)
mean what they mean to PyYAML. Values of keys that hold a password, or that a vault encrypted, are
hidden at once.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from getpass import getpass
from pathlib import Path
from typing import Any, Iterator, Optional

import yaml

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from hostkit.files import regular
from omnikit.yaml.node import Node, Origin
from omnikit.yaml.strict_yaml import compose

# Values and files of users that Ansible Vault encrypted, read with Ansible's own library.

HEADER = "$ANSIBLE_VAULT;"
# Ansible's own variable: users who have it set need no more.
VARIABLE = "ANSIBLE_VAULT_PASSWORD_FILE"


def decrypt(text: str, where: str) -> str:
    """The plain text. The password comes from the file that ANSIBLE_VAULT_PASSWORD_FILE names, or
    is asked for at a terminal.

    Raises InputError: where; no password, a wrong one, or no text of Ansible Vault.
    """
    if not text.lstrip().startswith(HEADER):
        raise InputError(
            "this value is marked !vault, but is no text of Ansible Vault.",
            where=where,
            todo="make it anew: ansible-vault encrypt_string",
        )
    from ansible.errors import AnsibleError  # late: slow to import, few files need it
    from ansible.parsing.vault import VaultLib

    cipher = "\n".join(line.strip() for line in text.strip().splitlines())
    try:
        plain = VaultLib([("default", _secret())]).decrypt(cipher)
    except (AnsibleError, OSError) as error:
        raise InputError(
            f"this value of Ansible Vault cannot be decrypted: {str(error).splitlines()[0]}",
            where=where,
            todo=f"set {VARIABLE} to the file that holds the vault's password",
        ) from error
    return str(plain.decode())


@lru_cache(maxsize=1)
def _secret() -> Any:
    """The vault's password, asked for once."""
    from ansible.errors import AnsibleError
    from ansible.parsing.dataloader import DataLoader
    from ansible.parsing.vault import VaultSecret, get_file_vault_secret

    file = os.environ.get(VARIABLE)
    if file:
        regular.opened(Path(file).expanduser()).close()
        secret = get_file_vault_secret(filename=str(Path(file).expanduser()), loader=DataLoader())
        secret.load()
        return secret
    if not sys.stdin.isatty():
        raise AnsibleError("its password is not known.")
    return VaultSecret(getpass("Ansible Vault password: ").encode())


_DEEPEST = 60
# Aliases can make a small file huge.
_MOST = 200_000
_RESOLVER: Any = yaml.resolver.Resolver()
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
_CONSTRUCTED = ("int", "bool", "null", "float")
_PREFIX = "tag:yaml.org,2002:"


def read_yaml(text: str, source: str, layer: int, repeated: Optional[list[str]] = None) -> Node:
    """YAML text to a tree. Raises InputError: source:line.

    repeated: takes a note for each key that stands twice, of which the later counts as in PyYAML;
    without it, such a key is refused.
    """
    tree = compose(text, source, secret="pass" in text.lower())
    return _Reader(source, layer, repeated).node(tree)


def is_secret(key: str) -> bool:
    """Whether a key of these files holds a password: password, ansible_ssh_pass, …"""
    return "pass" in key.lower()


@dataclass
class _Reader:
    source: str
    layer: int
    repeated: Optional[list[str]] = None
    count: int = 0

    def origin(self, tree: Any) -> Origin:
        return Origin(self.source, tree.start_mark.line + 1, self.layer)

    def node(self, tree: Any, depth: int = 0, secret: bool = False) -> Node:
        origin = self.origin(tree)
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST:
            raise InputError("the file is nested too deeply or too large.", where=str(origin))
        if tree.tag == "!vault" and isinstance(tree, yaml.ScalarNode):
            return Node(Hidden(decrypt(tree.value, str(origin))), origin)
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
        own = Node({}, origin)
        merged: list[Node] = []
        for key_tree, child in tree.value:
            where = self.origin(key_tree)
            if not isinstance(key_tree, yaml.ScalarNode):
                raise InputError("a key must be a plain word.", where=str(where))
            key = key_tree.value
            if key == "<<":
                parts = child.value if isinstance(child, yaml.SequenceNode) else [child]
                merged += [self.node(part, depth + 1) for part in reversed(parts)]
                continue
            if key in own.value:
                self.twice(key, own.key_origins[key], where)
            own.value[key] = self.node(child, depth + 1, is_secret(key))
            own.key_origins[key] = where
        if not merged:
            return own
        # In PyYAML's order, of which the later counts: recipes have variables that refer to those
        # above them.
        made = Node({}, origin)
        for part in [*merged, own]:
            if isinstance(part.value, dict):
                made.value.update(part.value)
                made.key_origins.update(part.key_origins)
        return made

    def twice(self, key: str, first: Origin, where: Origin) -> None:
        """Note a key that stands twice, or refuse it."""
        if self.repeated is None:
            raise InputError(
                f"the key {key!r} stands twice, first on line {first.line}.",
                where=str(where),
                todo="keep one of the two",
            )
        note = f"{first}: {key} stands twice, the later one counts ({where})"
        if note not in self.repeated:  # an alias is read each time
            self.repeated.append(note)


def _plain(text: str) -> Any:
    """An unquoted word as PyYAML reads it."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag[len(_PREFIX) :] not in _CONSTRUCTED:
        return text
    try:
        return _CONSTRUCTOR.construct_object(yaml.ScalarNode(tag, text))
    except ValueError:
        return text


# JSON text to a located tree: what json.loads accepts, with the line of every value.

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


def read_json(text: str, source: str, layer: int) -> Node:
    """JSON text to a tree. Raises InputError: source:line."""
    reader = _JsonReader(text, source, layer)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not valid JSON: {error.msg} at column {error.colno}.",
            where=f"{source}:{error.lineno}",
            todo="a comma too many, or one missing? JSON has no comments; YAML is read as well",
        ) from error
    return reader.value()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Every token with its line."""
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        yield match[0], line


class _JsonReader:
    """Reads JSON, of which json.loads says whether it is valid before value() is called. Commas and
    colons say nothing more then.
    """

    def __init__(self, text: str, source: str, layer: int) -> None:
        self._source, self._layer = source, layer
        self._tokens = [token for token in _tokens(text) if token[0] not in (",", ":")]
        self._next = 0
        depth = 0
        for token, line in self._tokens:
            depth += (token in "{[") - (token in "}]")
            if depth > _DEEPEST:
                raise InputError("the file is nested too deeply.", where=f"{source}:{line}")

    def _take(self) -> tuple[str, Origin]:
        token, line = self._tokens[self._next]
        self._next += 1
        return token, Origin(self._source, line, self._layer)

    def _until(self, end: str) -> Iterator[None]:
        while self._tokens[self._next][0] != end:
            yield
        self._next += 1

    def value(self, secret: bool = False) -> Node:
        token, origin = self._take()
        if token == "{":
            return self._map(origin)
        if token == "[":
            return Node([self.value(secret) for _ in self._until("]")], origin)
        found: Any = json.loads(token)
        return Node(Hidden(str(found)) if secret and found else found, origin)

    def _map(self, origin: Origin) -> Node:
        made = Node({}, origin)
        for _ in self._until("}"):
            token, where = self._take()
            key = json.loads(token)
            if key in made.value:
                raise InputError(
                    f"the key {key!r} stands twice, first on line {made.key_origins[key].line}.",
                    where=str(where),
                    todo="keep one of the two",
                )
            made.value[key] = self.value(is_secret(key))
            made.key_origins[key] = where
        return made
