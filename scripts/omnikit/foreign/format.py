"""Recognises files of other tools by what is in them, and reads them as settings."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Iterator, Optional

from hostkit.base.errors import InputError
from omnikit.foreign import recipe
from omnikit.foreign.layout import PROXY_HOST, Layout, Member
from omnikit.foreign.settings import (
    SERVICES,
    check_keys,
    devices,
    entries,
    not_known,
    port,
    put,
    required,
    text,
)
from omnikit.yaml.node import Node

if TYPE_CHECKING:
    from omnikit.foreign.layout import Layout
    from omnikit.yaml.node import Node


# omni_infer_deployment.yml (or .json), the file of omni-infer's omni_cli.

_GROUP = re.compile(r"group([0-9]{1,6})")
_HOST = re.compile(r"host\s+(\S+)")
_LOGIN = ("user", "private_key", "password")
_OWN = ("user", "master_port", "base_api_port", "private_key", "password")
_KEYS = (*_OWN, "ascend_rt_visible_devices")
_EXAMPLES = {
    "hosts": '"10.0.0.1,10.0.0.2", the master first',
    "master_port": '"8000"',
    "base_api_port": '"9000"',
    "ascend_rt_visible_devices": '"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"',
}


def read(tree: Node, source: str, layer: int) -> Layout:
    """The layout that the file describes. Raises InputError: source:line."""
    made = Layout(source, layer)
    top = check_keys(tree, "the file", ("deployment", "services"), made.notes)
    if "deployment" not in top:
        required(tree, "deployment", source, "a map with prefill, decode and proxy")
    known = ("prefill", "decode", "proxy", "docker_image")
    found = check_keys(top["deployment"], "deployment", known, made.notes)
    for role in ("prefill", "decode", "proxy"):
        required(top["deployment"], role, "deployment", "see the template of omni_cli")
    for label, group in _groups(found["prefill"], "prefill", made.notes):
        made.prefill.append(_members(made, group, label, "p", sum(map(len, made.prefill))))
    decode = list(_groups(found["decode"], "decode", made.notes))
    if len(decode) > 1:
        raise InputError(
            f"found {len(decode)} decode groups, only one is supported: all decode hosts form one"
            " instance that every prefill instance hands over to.",
            where=str(found["decode"].key_origins[decode[1][0].rpartition(".")[2]]),
            todo="list all decode hosts in group1: hosts: IP,IP with the master first",
        )
    made.decode = [_members(made, decode[0][1], decode[0][0], "d", 0)]
    _proxy(made, found["proxy"])
    if "docker_image" in found:
        put(made, "docker_image", found["docker_image"], "deployment.docker_image")
    if "services" in top and top["services"].value is not None:
        _services(made, top["services"])
    return made


def _groups(node: Node, role: str, notes: list[str]) -> Iterator[tuple[str, Node]]:
    """The groups of a role with their names, in the order of the file, as omni_cli counts them."""
    numbered: dict[int, str] = {}
    for key in entries(node, f"deployment.{role}"):
        match = _GROUP.fullmatch(key)
        if not match:
            raise InputError(
                f"unknown key {key!r} in deployment.{role}, expected group1, group2, …",
                where=str(node.key_origins[key]),
                todo="groups of a role are called group1, group2, …",
            )
        other = numbered.setdefault(int(match[1]), key)
        if other != key:
            raise InputError(
                f"{key} of deployment.{role} has the number of {other}.",
                where=str(node.key_origins[key]),
                todo="number the groups 1, 2, 3, …",
            )
    if [*numbered] != sorted(numbered):
        notes.append(
            f"{node.origin}: the numbers of {role}'s groups are not used: they are counted in the"
            f" order of the file ({', '.join(numbered.values())}), as omni_cli does"
        )
    for key in numbered.values():
        yield f"{role}.{key}", node.value[key]


def _members(made: Layout, group: Node, label: str, letter: str, first: int) -> list[Member]:
    overrides: dict[str, Node] = {}
    for key, child in entries(group, f"deployment.{label}").items():
        match = _HOST.fullmatch(key)
        if match:
            overrides[match[1]] = child
            if child.value is not None:
                check_keys(child, f"{label}, {key}", _KEYS)
        elif key not in ("hosts", *_KEYS):
            not_known(group, key, label, ("hosts", *_KEYS, "host IP"), made.notes)
    addresses = _addresses(group, label)
    for address in overrides:
        if address not in [str(node.value) for node in addresses]:
            key = next(k for k in group.value if k.split()[-1] == address and k != address)
            known = [str(node.value) for node in addresses]
            near = get_close_matches(address, known, n=1)
            raise InputError(
                f"{label} has settings for the host {address}, which is not among its hosts"
                + (f", is it {near[0]}?" if near else "."),
                where=str(group.key_origins[key]),
                todo=f"its hosts are {', '.join(known)} ({addresses[0].origin})",
            )
    return [
        _member(made, group, overrides.get(str(node.value)), label, node, f"{letter}{first + i}")
        for i, node in enumerate(addresses)
    ]


def _addresses(group: Node, label: str) -> list[Node]:
    node = required(group, "hosts", label, _EXAMPLES["hosts"])
    words = [word.strip() for word in str(text(node, f"{label}: hosts").value).split(",")]
    for k, word in enumerate(words):
        if not word or " " in word or word in words[:k]:
            said = "is empty" if not word else "is malformed" if " " in word else "stands twice"
            raise InputError(
                f"{label}: hosts: entry {k + 1} of {node.value!r} {said}.",
                where=str(node.origin),
                todo=f"separate addresses by commas, for example: hosts: {_EXAMPLES['hosts']}",
            )
    return [Node(word, node.origin) for word in words]


def _member(
    made: Layout, group: Node, override: Node | None, label: str, address: Node, name: str
) -> Member:
    own: dict[str, Node] = override.value if override is not None and override.value else {}
    values = {key: node for key, node in {**group.value, **own}.items() if key in _KEYS}
    shown = f"{label} on {address.value}"
    merged = Node(values, group.origin, group.key_origins)
    host = made.host(name, address, _login(values, shown), shown)
    return Member(
        host=host,
        label=shown,
        where=address.origin,
        master_port=port(_needed(merged, "master_port", label), f"{shown}: master_port"),
        api_port=port(_needed(merged, "base_api_port", label), f"{shown}: base_api_port"),
        devices=devices(
            _needed(merged, "ascend_rt_visible_devices", label),
            f"{shown}: ascend_rt_visible_devices",
        ),
    )


def _needed(group: Node, key: str, label: str) -> Node:
    return required(group, key, label, _EXAMPLES[key])


def _login(values: dict[str, Node], label: str) -> dict[str, Node]:
    return {
        key: text(values[key], f"{label}: {key}")
        for key in _LOGIN
        if key in values and values[key].value not in (None, "")
    }


def _proxy(made: Layout, node: Node) -> None:
    found = check_keys(node, "deployment.proxy", ("host", "listen_port", *_LOGIN), made.notes)
    address = text(required(node, "host", "deployment.proxy", '"10.0.0.1"'), "deployment.proxy")
    address = Node(str(address.value).strip(), address.origin)
    listen = required(node, "listen_port", "deployment.proxy", '"7000"')
    made.proxy_port = port(listen, "deployment.proxy: listen_port")
    login = _login(found, "deployment.proxy")
    made.proxy = made.host(PROXY_HOST, address, login, "the proxy")


def _services(made: Layout, node: Node) -> None:
    found = check_keys(node, "services", (*SERVICES, "prefill", "decode"), made.notes)
    for key, child in found.items():
        if key in SERVICES:
            put(made, key, child, f"services.{key}")
        elif key in ("prefill", "decode") and child.value is not None:
            lengths = check_keys(child, f"services.{key}", ("max_model_len",), made.notes)
            if "max_model_len" in lengths:
                label = f"services.{key}.max_model_len"
                put(made, f"{key}.max_model_len", lengths["max_model_len"], label)


DEPLOYMENT = "omni_infer_deployment.yml of omni_cli"
INVENTORY = "Ansible inventory"
VARIABLES = "variables of omni-infer's playbook"
# What describes a whole environment.
WHOLE = (DEPLOYMENT, INVENTORY)
# None of these is a section of ours. The key stands at the left, or first in braces.
_TOP = re.compile(
    r"^\ufeff?(?:\{\s*)?[\"']?(?P<key>deployment|services|all|P|D|C)[\"']?[ \t]*:", re.MULTILINE
)
_INI = re.compile(r"\A(?:\s*(?:[#;].*)?\n)*\[[\w.-]+(?::\w+)?\]\s*(?:[#;].*)?$", re.MULTILINE)
_PLAY = re.compile(r"^-[ \t](?:.*\n)*?[- ][ \t]+(hosts|import_playbook)[ \t]*:", re.MULTILINE)
_NAMES = re.compile(
    r"^(?:ranktable_save_path|LOG_PATH|MODEL_PATH|\w*CODE_PATH|DOCKER_\w+|run_\w+_profile"
    r"|[A-Z]\w*_[A-Z_]+)[ \t]*:",
    re.M,
)

_ELSE = (
    (r"\A\s*\$ANSIBLE_VAULT;", "a file that Ansible Vault encrypted (single values may be)"),
    (r"^(profile|topology|hosts|ports|based_on)\s*:", "settings of this toolkit"),
)


def recognise(text: str) -> Optional[str]:
    """The kind of a file of another tool, None for anything else, such as settings of ours."""
    top = _json_keys(text)
    if top is not None:
        text = "\n".join(f"{key}:" for key in top)
    if recipe.looks_like(text):
        return recipe.KIND
    match = _TOP.search(text)
    if match is None:
        if _INI.search(text):
            return INVENTORY
        return VARIABLES if _PLAY.search(text) or _NAMES.search(text) else None
    return DEPLOYMENT if match["key"] in ("deployment", "services") else INVENTORY


def _json_keys(text: str) -> Optional[list[str]]:
    """The keys of a JSON object, None for a text that is none."""
    if text.lstrip("\ufeff \t\r\n")[:1] != "{":
        return None
    try:
        found = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return list(found)


def expect(text: str, source: str) -> str:
    """The kind of a file that must describe an environment. Raises InputError: source:line."""
    kind = recognise(text)
    if kind in WHOLE:
        return str(kind)
    found = "something else"
    if kind == VARIABLES:
        found = f"{kind}, which go with an inventory (--vars FILE)"
    for pattern, what in _ELSE:
        if re.search(pattern, text, re.MULTILINE):
            found = what
            break
    raise InputError(
        f"found {found}, expected an omni_infer_deployment.yml (deployment:, services:) or an"
        " inventory (all: with the groups P, D and C), or a recipe of vllm-ascend (routing:,"
        " config:, templates:).",
        where=source,
        todo="a file of ours is used as it is: --environment FILE",
    )


def machines(tree: Node) -> list[tuple[str, Node]]:
    """Name and settings of each machine that a file has in its hosts:."""
    found = tree.child("hosts")
    if found is None or not isinstance(found.value, dict):
        raise InputError(
            "no hosts: are here.",
            where=str(tree.origin),
            todo="hosts: {p0: {address: 10.0.0.1, user: root}, …}, in the order of the recipe",
        )
    return list(found.value.items())


def read_variables(text: str, source: str, layer: int) -> Layout:
    """What a file of the playbook's variables says. Raises InputError: source:line."""
    kind = recognise(text)
    if kind != VARIABLES:
        raise InputError(
            f"found {kind or 'something else'}, expected {VARIABLES}.",
            where=source,
            todo="NAME: value on each line, or the playbook itself",
        )
    return read_layout(text, source, layer)


def read_layout(text: str, source: str, layer: int) -> Layout:
    """What a file that was recognised describes. Raises InputError: source:line."""
    from omnikit.foreign import trees  # late: few files need it

    if _INI.search(text):
        raise InputError(
            "this is an inventory in INI format, only YAML is read.",
            where=source,
            todo=f"convert it: ansible-inventory -i {source} --list --yaml > inventory.yml",
        )
    if source.endswith(".json") or _json_keys(text) is not None:
        tree = trees.read_json(text.lstrip("\ufeff"), source, layer)
    else:
        tree = trees.read_yaml(text, source, layer)
    kind = recognise(text)
    if kind == DEPLOYMENT:
        return read(tree, source, layer)

    from omnikit.foreign.inventory import inventory

    if kind == VARIABLES:
        return inventory.read_playbook(tree, source, layer)
    return inventory.read(tree, source, layer)


def read_settings(text: str, source: str, layer: int) -> Node:
    """The same as settings of ours. Raises InputError: source:line."""
    return read_layout(text, source, layer).tree()
