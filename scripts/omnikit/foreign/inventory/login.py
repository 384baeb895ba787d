"""How Ansible reaches a host, its words for ssh among them, as our settings."""

from __future__ import annotations

import re
import shlex
from difflib import get_close_matches
from typing import Any, Callable, Iterator

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from hostkit.base.values import whole
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.settings import port, text, wrong
from omnikit.yaml.node import Node

# Words for ssh that Ansible is told (ansible_ssh_common_args, …) as settings of a host.

NAMES = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args")
# Letters of ssh that are short for one of its options.
_SHORT = {
    "J": "ProxyJump",
    "p": "Port",
    "l": "User",
    "i": "IdentityFile",
    "C": "Compression=yes",
    "A": "ForwardAgent=yes",
    "4": "AddressFamily=inet",
    "6": "AddressFamily=inet6",
}
_SETTINGS = {"proxyjump": "jump", "port": "port", "user": "user", "identityfile": "private_key"}
_KEYS = "host keys are checked here; setup-keys asks for them and records them"
_OWN = "the toolkit keeps and watches its connections itself"
_UNUSED = {
    "controlmaster": _OWN,
    "controlpath": _OWN,
    "controlpersist": _OWN,
    "serveraliveinterval": _OWN,
    "serveralivecountmax": _OWN,
    "batchmode": "the toolkit knows by itself when it may ask",
    "connecttimeout": "it is the setting fleet.connect_timeout_s",
}
# "ssh -W %h:%p HOST" and no more than that is a jump host.
_THROUGH = re.compile(
    r"(?:/usr/bin/)?ssh(?: -q| -W ?%h:%p| -p ?(?P<port>\d+))+ (?P<host>[A-Za-z0-9][\w.@-]*)"
    r"(?: -q| -W ?%h:%p)*"
)


def read(node: Node, name: str, found: dict[str, Node], notes: list[str]) -> None:
    """Add to found what the words set: jump, port, user, private_key, known_hosts, ssh_options.

    A setting that is there already stays. notes: what is not used, with the reason, is added.
    Raises InputError when the text cannot be taken apart.
    """
    try:
        words = shlex.split(str(node.value))
    except ValueError as error:
        raise InputError(
            f"{name}: cannot take {str(node.value)!r} apart into words: {error}.",
            where=str(node.origin),
            todo="close the quotes",
        ) from error
    for word, option in _options(words):
        why = _use(option, node, found) if option else "ssh is not told it by the toolkit"
        note = f"{node.origin}: {name}: {word} is not used: {why}"
        if why and note not in notes:
            notes.append(note)


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each word for ssh with the option KEY=VALUE that it means, "" for none."""
    rest = iter(words)
    for word in rest:
        if word[:2] == "-o":
            text = word[2:] or next(rest, "")
            key, value = (*re.split(r"\s*[= ]\s*", text.strip(), maxsplit=1), "")[:2]
            yield text, f"{key}={value}" if value else ""
        elif word[:1] == "-" and word[1:2] in _SHORT:
            option = _SHORT[word[1]]
            if "=" in option:
                yield word, option
            else:
                value = word[2:] or next(rest, "")
                yield f"{word[:2]} {value}", f"{option}={value}" if value else ""
        else:
            yield word, ""


def _use(option: str, node: Node, found: dict[str, Node]) -> str:
    """Take an option over. Returns why it is not used, "" when it is."""
    key, _, value = option.partition("=")
    name = key.lower()
    through = _THROUGH.fullmatch(value) if name == "proxycommand" else None
    if through:
        port = f":{through['port']}" if through["port"] else ""
        name, value = "proxyjump", f"{through['host']}{port}"
    if name in _UNUSED:
        return _UNUSED[name]
    if name == "stricthostkeychecking":
        return "" if value.lower() in ("yes", "ask") else _KEYS
    if name == "userknownhostsfile":
        if value.strip('"') == "/dev/null":
            return _KEYS
        return _set(found, "known_hosts", value.strip('"'), node)
    if name in _SETTINGS:
        if name == "proxyjump" and value.lower() == "none":
            return ""
        number = whole(value) if name == "port" else None
        return _set(found, _SETTINGS[name], value if number is None else number, node)
    options = found.setdefault("ssh_options", Node([], node.origin))
    if f"{key}={value}" not in options.plain():
        options.value.append(Node(f"{key}={value}", node.origin))
    return ""


def _set(found: dict[str, Node], name: str, value: Any, node: Node) -> str:
    other = found.setdefault(name, Node(value, node.origin))
    return "" if other.value == value else f"{other.origin} says {other.value}"


# Our setting, and the variables that mean it, the one that wins first.
_OURS: dict[str, tuple[tuple[str, ...], Callable[[Node, str], Node]]] = {
    "user": (("ansible_user", "ansible_ssh_user"), text),
    "port": (("ansible_port", "ansible_ssh_port"), port),
    "private_key": (("ansible_ssh_private_key_file", "ansible_private_key_file"), text),
    "password": (("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"), text),
    "python": (("ansible_python_interpreter",), text),
}
_OTHER = (
    *("ansible_host", "ansible_ssh_host", "ansible_connection", "ansible_shell_type"),
    *("ansible_become", "ansible_become_user", "ansible_become_method", "ansible_become_password"),
)
_ENV = re.compile(
    r"\{\{\s*lookup\(\s*['\"](?:ansible\.builtin\.)?env['\"]\s*,\s*['\"](\w+)['\"]\s*\)\s*\}\}"
)


def login(variables: Variables, label: str, notes: list[str]) -> dict[str, Node]:
    """Settings of our hosts section, and known_hosts. Raises InputError.

    notes: what of ssh's arguments is not used is added.
    """
    _check_names(variables, label)
    found: dict[str, Node] = {}
    for ours, (names, convert) in _OURS.items():
        name = next((name for name in names if name in variables), None)
        if name is None:
            continue
        node = _variable(variables.raw(name)) if ours == "password" else None
        node = node or convert(variables.node(name), f"{name} of {label}")
        if ours == "python" and str(node.value).startswith("auto"):
            continue
        found[ours] = node
    if "ansible_connection" in variables:
        connection = variables.node("ansible_connection")
        if connection.value == "local":
            found["connection"] = connection
        elif connection.value not in ("ssh", "smart", "paramiko", "paramiko_ssh"):
            wanted = "ssh or local"
            todo = "others are not known here: remove it for SSH"
            raise wrong(connection, f"ansible_connection of {label}", wanted, todo)
    for name in NAMES:
        if name in variables:
            read(variables.node(name), name, found, notes)
    return found


def _variable(node: Node) -> Node | None:
    """A password that is looked up in a variable of the environment stays such a reference."""
    secret = node.value
    match = _ENV.fullmatch(secret.reveal().strip()) if isinstance(secret, Hidden) else None
    if match is None:
        return None
    return Node({"variable": Node(match[1], node.origin)}, node.origin)


def _check_names(variables: Variables, label: str) -> None:
    """A misspelled connection variable would silently not be used."""
    known = [name for names, _ in _OURS.values() for name in names]
    known += [*NAMES, *_OTHER]
    for name in variables.names():
        if not name.startswith("ansible_") or name in known:
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            raise InputError(
                f"unknown variable {name} of {label}, is it {near[0]}?",
                where=str(variables.written(name).origin),
                todo="names that begin with ansible_ are Ansible's own",
            )
