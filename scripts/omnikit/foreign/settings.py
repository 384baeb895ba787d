"""Settings besides the hosts: what omni_cli's services and the playbook call them, and we; single
values of their files checked, converted, and their mistakes explained.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Callable, Collection, Iterable, Mapping, Optional

from hostkit.base.errors import InputError
from hostkit.base.redact import Hidden
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.layout import Layout
from omnikit.yaml.node import Node

_DIGITS = re.compile(r"[0-9]{1,9}")
_DEVICES = re.compile(r"(0|[1-9][0-9]{0,3})(,(0|[1-9][0-9]{0,3}))*")


def wrong(node: Node, label: str, wanted: str, todo: str) -> InputError:
    """Found beside expected, for the value of a key."""
    return InputError(
        f"{label}: found {shown(node)}, expected {wanted}.", where=str(node.origin), todo=todo
    )


def shown(node: Node) -> str:
    """A value in a message."""
    if node.value is None:
        return "nothing"
    if isinstance(node.value, dict):
        return "a map"
    if isinstance(node.value, list):
        return "a list"
    if isinstance(node.value, Hidden):
        return str(node.value)
    text = repr(node.value)
    return text if len(text) <= 80 else text[:77] + "..."


def entries(node: Node, label: str) -> dict[str, Node]:
    """The entries of a map that must not be empty."""
    if not isinstance(node.value, dict) or not node.value:
        wanted = "a map with at least one entry"
        raise wrong(node, label, wanted, "write its entries indented below, key: value")
    found: dict[str, Node] = node.value
    return found


def unknown(node: Node, key: str, label: str, known: Iterable[str]) -> InputError:
    """The error for a key that the format does not have, with the nearest that it has."""
    near = get_close_matches(key, list(known), n=1, cutoff=0.5)
    return InputError(
        f"unknown key {key!r} in {label}" + (f", is it {near[0]!r}?" if near else "."),
        where=str(node.key_origins.get(key, node.origin)),
        todo="known here: " + ", ".join(known),
    )


def check_keys(
    node: Node, label: str, known: Collection[str], notes: Optional[list[str]] = None
) -> dict[str, Node]:
    """The entries of a map that has no other keys than these; with notes, see not_known."""
    found = entries(node, label)
    for key in found:
        if key not in known:
            not_known(node, key, label, known, notes)
    return found


def not_known(
    node: Node, key: str, label: str, known: Iterable[str], notes: Optional[list[str]]
) -> None:
    """A key that the format does not have: what looks like a typing mistake is an error, another
    one is added to notes. Without notes, each is an error."""
    if notes is None or get_close_matches(key, list(known), n=1, cutoff=0.75):
        raise unknown(node, key, label, known)
    origin = node.key_origins.get(key, node.origin)
    notes.append(f"{origin}: {key} in {label}: not used: omni_cli's file has no such key")


def required(node: Node, key: str, label: str, example: str) -> Node:
    """The value of a key that must be there and not empty."""
    found = node.child(key)
    if found is None:
        near = get_close_matches(key, list(node.value), n=1, cutoff=0.6)
        raise InputError(
            f"{label}: {key} is missing" + (f", is it {near[0]!r}?" if near else "."),
            where=str(node.key_origins.get(near[0], node.origin) if near else node.origin),
            todo=f"add: {key}: {example}",
        )
    if found.value in (None, "", [], {}):
        raise wrong(found, f"{label}: {key}", f"something like {example}", "give the value")
    return found


def text(node: Node, label: str) -> Node:
    """One word or line of text; a number becomes the text that it was."""
    if isinstance(node.value, (bool, dict, list)) or node.value in (None, ""):
        raise wrong(node, label, "text", "quote it if it looks like something else")
    return node if isinstance(node.value, str) else Node(str(node.value), node.origin)


def number(node: Node, label: str, low: int, high: int) -> Node:
    """A whole number in a range, also when it is written as text."""
    value = node.value
    if isinstance(value, str) and not isinstance(value, Hidden):
        value = int(value) if _DIGITS.fullmatch(value.strip()) else None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(node, label, f"a whole number from {low} to {high}", "write the number alone")
    return Node(value, node.origin)


def port(node: Node, label: str) -> Node:
    """A port number."""
    return number(node, label, 1, 65535)


def devices(node: Node, label: str) -> Node:
    """Device ids "0,1,2,3" as our range "0-3"; they must count up by one, without spaces."""
    value = str(node.value) if isinstance(node.value, int) else node.value
    wanted = 'device ids that count up by one, with commas and without spaces, like "0,1,2,3"'
    if isinstance(value, bool) or not isinstance(value, (str, list)):
        raise wrong(node, label, wanted, "name every id")
    listed = value if isinstance(value, list) else re.split(r"[,\s]+", value)
    words = [str(one.value if isinstance(one, Node) else one) for one in listed]
    ids = sorted({int(word) for word in words if _DIGITS.fullmatch(word) and len(word) < 5})
    meant = ",".join(map(str, ids))
    good = isinstance(value, str) and _DEVICES.fullmatch(value) and meant == value
    if not good or ids[-1] - ids[0] + 1 != len(ids):
        counts_up = bool(ids) and ids[-1] - ids[0] + 1 == len(ids)
        advice = f'write "{meant}" if that is meant' if counts_up else "name every id"
        raise wrong(node, label, wanted, advice)
    short = str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}"
    return Node(short, node.origin)


Path = tuple[str, ...]


def _length(node: Node, label: str) -> Node:
    return number(node, label, 1, 100_000_000)


def _size(node: Node, label: str) -> Node:
    return number(node, label, 1, 4096)


def _source(node: Node, label: str) -> Node:
    """Users name the folder that the source was cloned in: the source is omniinfer below it."""
    found = text(node, label)
    return Node(str(PurePosixPath(found.value) / "omniinfer"), found.origin)


def _core(node: Node, label: str) -> Node:
    return number(node, label, 0, 1023)


def _args(role: str) -> Path:
    return ("roles", role, "server", "args", "max-model-len")


_SOURCE: Path = ("paths", "code_dir")
_LOCAL_SOURCE: Path = ("paths", "local_code_dir")
_AFFINITY = ("roles", "disaggregated", "server", "env", "CPU_AFFINITY_CONF")
_PLACES: dict[str, tuple[Path, Callable[[Node, str], Node]]] = {
    "log_path": (("paths", "log_dir"), text),
    "model_path": (("model", "path"), text),
    "code_path": (_SOURCE, _source),
    "local_code_path": (_LOCAL_SOURCE, _source),
    "http_proxy": (("fleet", "http_proxy"), text),
    "docker_image": (("container", "image"), text),
    "prefix.prefill": (("container", "prefix", "prefill"), text),
    "prefix.decode": (("container", "prefix", "decode"), text),
    "prefix.proxy": (("container", "prefix", "proxy"), text),
    "prefill.max_model_len": (_args("prefill"), _length),
    "decode.max_model_len": (_args("decode"), _length),
    "decode.tensor_parallel": (("roles", "decode", "server", "tensor_parallel"), _size),
    "log_path_in_executor": (("paths", "local_log_dir"), text),
    "proxy.prefill_balance": (("proxy", "prefill_balance"), text),
    "proxy.decode_balance": (("proxy", "decode_balance"), text),
    "proxy.workers": (("proxy", "worker_processes"), _size),
    "proxy.start_core": (("proxy", "start_core"), _core),
    "server.affinity": (_AFFINITY, text),
    "served.name": (("model", "served_name"), text),
    "known.hosts": (("keys", "known_hosts"), text),
}
SERVICES = [name for name in _PLACES if "." not in name]
# Names of the playbook's settings, which some keep as variables of the inventory.
VARIABLES = {
    "LOG_PATH": "log_path",
    "MODEL_PATH": "model_path",
    "MODEL_LEN_MAX_PREFILL": "prefill.max_model_len",
    "MODEL_LEN_MAX_DECODE": "decode.max_model_len",
    "CODE_PATH": "code_path",
    "HTTP_PROXY": "http_proxy",
    "DOCKER_IMAGE_ID": "docker_image",
    "docker_image": "docker_image",
    "DOCKER_NAME_P": "prefix.prefill",
    "DOCKER_NAME_D": "prefix.decode",
    "DOCKER_NAME_C": "prefix.proxy",
    "DECODE_TENSOR_PARALLEL_SIZE": "decode.tensor_parallel",
    "LOG_PATH_IN_EXECUTOR": "log_path_in_executor",
    "LOCAL_CODE_PATH": "local_code_path",
    "PREFILL_LB_SDK": "proxy.prefill_balance",
    "DECODE_LB_SDK": "proxy.decode_balance",
    "GLOBAL_PROXY_CORE_NUM": "proxy.workers",
    "GLOBAL_PROXY_START_CORE_INDEX": "proxy.start_core",
    "CPU_AFFINITY_CONF": "server.affinity",
    "CPU_AFFINITY_COMF": "server.affinity",  # so spelled in some playbooks
    "SERVED_MODEL_NAME": "served.name",
}
# What else they may say, and the one value that this release can serve.
_FIXED = {
    "KV_CONNECTOR": ("AscendHcclConnectorV1", "no other connector"),
    "USE_OMNI_PROXY": ("0", "the global proxy alone"),
}
KNOWN = (*VARIABLES, *_FIXED)
# What playbooks of omni-infer 1.2 say; of a connector that the release lacks, the plan tells.
_LATER_CONNECTOR = "LLMDataDistConnector"
_CONNECTOR: Path = (*_AFFINITY[:3], "args", "kv-transfer-config", "kv_connector")


def put(layout: Layout, name: str, node: Node, label: str) -> None:
    """Record a setting under our name for it; an empty one says nothing. Raises InputError."""
    if node.value in (None, ""):
        return
    path, convert = _PLACES[name]
    made = convert(node, label)
    other = layout.settings.get(path)
    derived = path == _LOCAL_SOURCE and other is layout.settings.get(_SOURCE)
    if other is not None and not derived and other.value != made.value:
        layout.notes.append(
            f"{node.origin}: {label} is not used: {other.origin} says {other.value} for the same"
        )
        return
    layout.settings[path] = made
    if path == _SOURCE:  # upstream's tool copies the source to the path that it has here
        layout.settings.setdefault(_LOCAL_SOURCE, made)


def put_variables(layout: Layout, hosts: Mapping[str, Variables]) -> None:
    """Record what a playbook's variables say; all hosts that have one must say the same.

    Raises InputError.
    """
    for name in KNOWN:
        first: tuple[str, Node] | None = None
        for host, variables in hosts.items():
            if name not in variables:
                continue
            node = variables.node(name)
            if first is not None and first[1].value != node.value:
                raise InputError(
                    f"{name} is {shown(node)} for {host} and {shown(first[1])} for {first[0]}"
                    f" ({first[1].origin}), it can be but one thing for all.",
                    where=str(node.origin),
                    todo="say it once, under vars: of all",
                )
            first = first or (host, node)
        if first is None:
            continue
        if name == "KV_CONNECTOR" and first[1].value == _LATER_CONNECTOR:
            layout.settings[_CONNECTOR] = first[1]
        elif name in _FIXED:
            _check(name, first[1])
        else:
            put(layout, VARIABLES[name], first[1], name)


def _check(name: str, node: Node) -> None:
    wanted, what = _FIXED[name]
    if str(node.value) != wanted:
        raise wrong(
            node, name, f"{wanted!r}: of this release the toolkit serves {what}", "remove the line"
        )
