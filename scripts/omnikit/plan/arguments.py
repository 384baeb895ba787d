"""The command lines and variables of vLLM servers, from settings and planned facts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Collection, Iterator, Mapping, Optional, Sequence

from hostkit.base.errors import InputError
from hostkit.base.values import parsed, whole
from omnikit.config.schema import Secret, Server
from omnikit.plan.types import NodePlan
from omnikit.yaml.node import Node

# The commands and variables of a node's servers: what they share once, and each server's own.

Facts = Mapping[str, Any]

# What differs between the servers of one node; all other facts are the node's.
SERVER_FACTS = (
    "server_name",
    "local_rank",
    "dp_rank",
    "external_dp_rank",
    "offset_rank",
    "server_devices",
    "api_port",
    "kv_port",
)


# What is the same for servers that are equal but for their place, and so may be compiled in; all
# other facts (addresses, ports, ranks, folders of logs, how many instances there are) are not.
_COMPILED = (
    *("role", "kv_role", "model_path", "placement", "code_dir", "engine_venv", "engine_python"),
    *("tp_size", "dp_size", "external_dp_size", "instance_devices"),
    *("prefill_dp_size", "prefill_tp_size", "decode_dp_size", "decode_tp_size"),
)


class _Compiled(dict[str, Any]):
    """Those facts; in place of any other stays its name."""

    def __init__(self, facts: Facts) -> None:
        super().__init__({name: facts[name] for name in _COMPILED if name in facts})

    def __missing__(self, name: str) -> str:
        return f"${{plan.{name}}}"


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

    def __init__(self, server: Server, variables: Mapping[str, str]) -> None:
        """variables: by flag, the variable that the engine reads in its place; see secrets."""
        args, env = server.args.items(), server.env.items()
        self.secrets: dict[str, Secret] = {
            **{k: v for k, v in env if isinstance(v, Secret)},
            **{variables[k]: v for k, v in args if isinstance(v, Secret)},
        }
        self._command = server.command
        self._files = server.files
        self._prepend = server.prepend
        self._workdir = server.workdir
        self._prepare = server.prepare
        self._args = _items({k: v for k, v in args if not isinstance(v, Secret)})
        self._env = _items({k: v for k, v in env if v is not None and not isinstance(v, Secret)})
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

    def prepend(self, facts: Facts) -> dict[str, str]:
        """What is put in front of a node's variables."""
        given = self._prepend.items()
        return {name: str(fill(text, facts)) for name, text in given if text is not None}

    def compiled(self, facts: Facts, ignore: Collection[str]) -> dict[str, Any]:
        """What a node's servers compile depends on, of their settings. ignore: flags and variables
        on which it does not. Secrets are no part of it.
        """
        known, without = _Compiled(facts), {name.replace("_", "-") for name in ignore}

        def kept(items: Sequence[_Item]) -> list[tuple[str, Any]]:
            named = [(i.name, fill(i.value, known)) for i in items]
            return [one for one in named if one[0].replace("_", "-") not in without]

        return {
            "command": [str(fill(word, known)) for word in self._command],
            "args": sorted(
                " ".join(words) for one in kept(self._args) if (words := flag_words(*one))
            ),
            "env": sorted(f"{name}={env_text(value)}" for name, value in kept(self._env)),
            "prepend": sorted(f"{name}={text}" for name, text in self.prepend(known).items()),
            "files": fill(self._files, known),
        }

    def workdir(self, facts: Facts) -> str:
        """The folder that a node's servers start in, "" for no matter which."""
        return str(fill(self._workdir or "", facts))

    def prepare(self, facts: Facts) -> tuple[str, ...]:
        """The shell commands before a node's servers."""
        return tuple(str(fill(command, facts)) for command in self._prepare)

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


_OPENING = "${plan."
_FACT = re.compile(r"\$\{plan\.([a-z_]+)\}")
_NUMBER = re.compile(r"-[0-9.]+")


def fill(value: Any, facts: Mapping[str, Any]) -> Any:
    """A value with every ${plan.NAME} replaced by that fact (see check_references).

    A value that is nothing but one reference takes the fact's own type.
    """
    if isinstance(value, str):
        if _OPENING not in value:
            return value
        whole = _FACT.fullmatch(value)
        if whole:
            return facts[whole[1]]
        return _FACT.sub(lambda match: str(facts[match[1]]), value)
    if isinstance(value, dict):
        return {key: fill(child, facts) for key, child in value.items()}
    if isinstance(value, list):
        return [fill(child, facts) for child in value]
    return value


def references(value: Any) -> set[str]:
    """The facts that a value refers to."""
    if isinstance(value, str):
        return set(_FACT.findall(value)) if _OPENING in value else set()
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list)):
        return set()
    return set().union(*(references(child) for child in children))


def check_references(tree: Node, known: Collection[str]) -> None:
    """Refuse what looks like a reference and is none. Raises InputError with the place."""
    for text, node in _texts(tree):
        if _OPENING not in text:
            continue
        names = _FACT.findall(text)
        unknown = next((name for name in names if name not in known), None)
        if unknown is None and text.count(_OPENING) == len(names):
            continue
        shown = f"{_OPENING}{unknown}}}" if unknown else text[text.index(_OPENING) :][:40]
        near = get_close_matches(unknown or "", list(known), n=1)
        raise InputError(
            f"{shown} is no planned fact" + (f", is it ${{plan.{near[0]}}}?" if near else "."),
            where=str(node.origin),
            todo="known are: " + ", ".join(sorted(known)),
        )


def _texts(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield key, node
            yield from _texts(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _texts(child)
    elif isinstance(node.value, str):
        yield node.value, node


def flag_words(name: str, value: Any) -> tuple[str, ...]:
    """One flag and its value as words: true is a bare flag, false and null are no flag."""
    if value is None or value is False:
        return ()
    flag = f"--{name}"
    if value is True:
        return (flag,)
    if isinstance(value, dict):
        text = json.dumps(_without_null(value), separators=(", ", ": "), ensure_ascii=False)
        return (flag, text)
    if isinstance(value, list):
        return (flag, *(str(word) for word in value))
    text = str(value)
    if text.startswith("-") and not _NUMBER.fullmatch(text):
        return (f"{flag}={text}",)  # as a word of its own it would be read as a flag
    return (flag, text)


def _without_null(value: Any) -> Any:
    """A layer removes what a lower one says by null, in the JSON of a flag too."""
    if isinstance(value, dict):
        return {key: _without_null(child) for key, child in value.items() if child is not None}
    return [_without_null(child) for child in value] if isinstance(value, list) else value


def env_text(value: Any) -> str:
    """An environment variable's value as text; booleans as 1 and 0."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def flag(node: NodePlan, name: str) -> Optional[str]:
    """The value of a flag in a node's command, however it is spelled; None when it is not there."""
    wanted = name.replace("_", "-")
    words = [*node.command, *(node.servers[0].own_args if node.servers else ())]
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--") and word[2:].replace("_", "-") == wanted:
            return following
    return None


def size_of(args: Mapping[str, Any], name: str) -> int:
    """A parallel size among a server's flags, however it is spelled; 1 where it is not given."""
    told = next((str(v) for key, v in args.items() if key.replace("_", "-") == name), "1")
    return whole(told) or 1


def flag_list(node: NodePlan, name: str) -> list[str]:
    """All values of a flag in a node's command, which is spelled with hyphens."""
    found: list[str] = []
    taken = False
    for word in [*node.command, *(node.servers[0].own_args if node.servers else ())]:
        if word.startswith("--"):
            taken = word[2:].replace("_", "-") == name
        elif taken:
            found.append(word)
    return found


def json_flag(node: NodePlan, name: str) -> dict[str, Any]:
    """A flag whose value is a JSON object; {} where it is none."""
    text = flag(node, name)
    try:
        data = parsed(text) if text else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
