"""Settings that were read from another tool's file as an environment file of ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Iterator, Union

from hostkit.base.redact import Hidden
from omnikit.yaml.located import Node, Origin
from omnikit.yaml.strict_yaml import reads_as_text

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
