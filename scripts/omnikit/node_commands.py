"""The commands and variables of a node's servers: what they share once, and each server's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from omnikit.arguments import env_text, fill, flag_words, references
from omnikit.schema import Server

Facts = Mapping[str, Any]

# What differs between the servers of one node; all other facts are the node's.
SERVER_FACTS = (
    "server_name",
    "local_rank",
    "dp_rank",
    "offset_rank",
    "server_devices",
    "api_port",
    "kv_port",
)


@dataclass(frozen=True)
class Own:
    """What one server has for itself."""

    args: tuple[str, ...]
    env: dict[str, str]


@dataclass(frozen=True)
class _Item:
    """A flag or variable. own: it refers to facts of a single server; fixed: to none at all."""

    name: str
    value: Any
    own: bool
    fixed: bool


def _items(settings: Mapping[str, Any]) -> list[_Item]:
    made = []
    for name, value in settings.items():
        names = references(value)
        made.append(_Item(name, value, not names.isdisjoint(SERVER_FACTS), not names))
    return made


class NodeCommands:
    """Server settings made ready to be filled in for many nodes: what is constant is done once."""

    def __init__(self, server: Server) -> None:
        self._command = server.command
        self._files = server.files
        self._args = _items(server.args)
        self._env = _items({k: v for k, v in server.env.items() if v is not None})
        self._fixed_words = {i.name: flag_words(i.name, i.value) for i in self._args if i.fixed}
        self._fixed_env = {i.name: env_text(i.value) for i in self._env if i.fixed}

    def shared(
        self, facts: Facts, servers: Sequence[Facts]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Words and variables that are the same for all servers of a node."""
        alone = len(servers) == 1
        known = {**facts, **servers[0]}
        command = [str(fill(word, known)) for word in self._command]
        for item in self._args:
            if item.fixed:
                command += self._fixed_words[item.name]
            elif alone or not item.own:
                command += flag_words(item.name, fill(item.value, known))
        env = {}
        for item in self._env:
            if item.fixed:
                env[item.name] = self._fixed_env[item.name]
            elif alone or not item.own:
                env[item.name] = env_text(fill(item.value, known))
        return tuple(command), env

    def files(self, facts: Facts) -> dict[str, Any]:
        """The node's JSON files, filled in."""
        return {name: fill(data, facts) for name, data in self._files.items()}

    def own(self, facts: Facts, servers: Sequence[Facts]) -> list[Own]:
        """What differs between a node's servers; nothing when there is one alone."""
        if len(servers) == 1:
            return [Own((), {})]
        args = [item for item in self._args if item.own]
        env = [item for item in self._env if item.own]
        made = []
        for server in servers:
            known = {**facts, **server}
            words = [word for i in args for word in flag_words(i.name, fill(i.value, known))]
            made.append(Own(tuple(words), {i.name: env_text(fill(i.value, known)) for i in env}))
        return made
