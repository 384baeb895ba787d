"""omni_infer_deployment.yml, the file of omni-infer's omni_cli."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Iterator

from omnikit.errors import InputError
from omnikit.foreign_layout import PROXY_HOST, Layout, Member
from omnikit.foreign_settings import SERVICES, put
from omnikit.foreign_values import check_keys, devices, entries, port, required, text, unknown
from omnikit.located import Node

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
    top = check_keys(tree, "the file", ("deployment", "services"))
    if "deployment" not in top:
        required(tree, "deployment", source, "a map with prefill, decode and proxy")
    found = check_keys(
        top["deployment"], "deployment", ("prefill", "decode", "proxy", "docker_image")
    )
    for role in ("prefill", "decode", "proxy"):
        required(top["deployment"], role, "deployment", "see the template of omni_cli")
    for label, group in _groups(found["prefill"], "prefill"):
        made.prefill.append(_members(made, group, label, "p", sum(map(len, made.prefill))))
    decode = list(_groups(found["decode"], "decode"))
    if len(decode) > 1:
        raise InputError(
            f"found {len(decode)} decode groups, only one is supported: all decode hosts form one"
            " instance that every prefill instance hands over to.",
            where=str(found["decode"].key_origins[decode[1][0].rpartition(".")[2]]),
            todo="list all decode hosts in group1: hosts: IP,IP with the master first",
        )
    made.decode = _members(made, decode[0][1], decode[0][0], "d", 0)
    _proxy(made, found["proxy"])
    if "docker_image" in found:
        put(made, "docker_image", found["docker_image"], "deployment.docker_image")
    if "services" in top and top["services"].value is not None:
        _services(made, top["services"])
    return made


def _groups(node: Node, role: str) -> Iterator[tuple[str, Node]]:
    """The groups of a role with their names, in the order of their numbers."""
    numbered: dict[int, str] = {}
    for key in entries(node, f"deployment.{role}"):
        match = _GROUP.fullmatch(key)
        if not match:
            raise InputError(
                f"unknown key {key!r} in deployment.{role}, expected group1, group2, …",
                where=str(node.key_origins[key]),
                todo="the number is the order of the instances",
            )
        other = numbered.setdefault(int(match[1]), key)
        if other != key:
            raise InputError(
                f"{key} of deployment.{role} has the number of {other}.",
                where=str(node.key_origins[key]),
                todo="number the groups 1, 2, 3, …",
            )
    for _, key in sorted(numbered.items()):
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
            raise unknown(group, key, label, ("hosts", *_KEYS, "host IP"))
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
    found = check_keys(node, "deployment.proxy", ("host", "listen_port", *_LOGIN))
    address = text(required(node, "host", "deployment.proxy", '"10.0.0.1"'), "deployment.proxy")
    address = Node(str(address.value).strip(), address.origin)
    listen = required(node, "listen_port", "deployment.proxy", '"7000"')
    made.proxy_port = port(listen, "deployment.proxy: listen_port")
    login = _login(found, "deployment.proxy")
    made.proxy = made.host(PROXY_HOST, address, login, "the proxy")


def _services(made: Layout, node: Node) -> None:
    found = check_keys(node, "services", (*SERVICES, "prefill", "decode"))
    for key, child in found.items():
        if key in SERVICES:
            put(made, key, child, f"services.{key}")
        elif child.value is not None:
            length = check_keys(child, f"services.{key}", ("max_model_len",))["max_model_len"]
            put(made, f"{key}.max_model_len", length, f"services.{key}.max_model_len")
