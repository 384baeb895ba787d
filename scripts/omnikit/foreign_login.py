"""How Ansible reaches a host, in our words."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Callable

from omnikit.errors import InputError
from omnikit.foreign_jinja import Variables
from omnikit.foreign_values import port, text, wrong
from omnikit.hidden import Hidden
from omnikit.located import Node

# Our setting, and the variables that mean it, the one that wins first.
_OURS: dict[str, tuple[tuple[str, ...], Callable[[Node, str], Node]]] = {
    "user": (("ansible_user", "ansible_ssh_user"), text),
    "port": (("ansible_port", "ansible_ssh_port"), port),
    "private_key": (("ansible_ssh_private_key_file", "ansible_private_key_file"), text),
    "password": (("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"), text),
    "python": (("ansible_python_interpreter",), text),
}
_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args")
_NO_EFFECT = (
    "ansible_become",
    "ansible_become_user",
    "ansible_become_method",
    "ansible_shell_type",
)
_OTHER = ("ansible_host", "ansible_ssh_host", "ansible_connection", "ansible_become_password")
_JUMP = re.compile(r"(?:ProxyJump[= ]|-J ?)[\"']?([A-Za-z0-9][A-Za-z0-9._@:,-]*)")
# Said of every connection; ours checks host keys and says so in its own words.
_USUAL = re.compile(r"-o ?(StrictHostKeyChecking|IdentitiesOnly|UserKnownHostsFile)[= ]\S+")
_ENV = re.compile(
    r"\{\{\s*lookup\(\s*['\"](?:ansible\.builtin\.)?env['\"]\s*,\s*['\"](\w+)['\"]\s*\)\s*\}\}"
)


def login(variables: Variables, label: str, notes: list[str]) -> dict[str, Node]:
    """Settings of our hosts section. Raises InputError. notes: what has no effect is added."""
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
    for name in (*_ARGUMENTS, *_NO_EFFECT):
        if name in variables:
            _other(variables.node(name), name, found, notes)
    return found


def _variable(node: Node) -> Node | None:
    """A password that is looked up in a variable of the environment stays such a reference."""
    secret = node.value
    match = _ENV.fullmatch(secret.reveal().strip()) if isinstance(secret, Hidden) else None
    if match is None:
        return None
    return Node({"variable": Node(match[1], node.origin)}, node.origin)


def _other(node: Node, name: str, found: dict[str, Node], notes: list[str]) -> None:
    value = str(node.value)
    if name in _ARGUMENTS:
        jump = _JUMP.search(value)
        if jump:
            found["jump"] = Node(jump[1], node.origin)
        rest = _USUAL.sub("", _JUMP.sub("", value)).replace("-o", "").strip()
        if "StrictHostKeyChecking" in value:
            rest = f"{rest} StrictHostKeyChecking".strip()
        if not rest:
            return
        value = rest
    note = f"{node.origin}: {name}: {value} has no effect here"
    if "StrictHostKeyChecking" in value:
        note += " (host keys are checked: add them once with ssh-keyscan or a first ssh by hand)"
    if note not in notes:
        notes.append(note)


def _check_names(variables: Variables, label: str) -> None:
    """A misspelled connection variable would silently not be used."""
    known = [name for names, _ in _OURS.values() for name in names]
    known += [*_ARGUMENTS, *_NO_EFFECT, *_OTHER]
    for name in variables.names():
        if not name.startswith("ansible_") or name in known:
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            raise InputError(
                f"unknown variable {name} of {label}, is it {near[0]}?",
                where=str(variables.raw(name).origin),
                todo="names that begin with ansible_ are Ansible's own",
            )
