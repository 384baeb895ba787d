"""Settings besides the hosts: what omni_cli's services and the playbook call them, and we."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Callable, Mapping

from hostkit.base.errors import InputError
from omnikit.foreign.inventory.jinja import Variables
from omnikit.foreign.layout import Layout
from omnikit.foreign.values import number, shown, text, wrong
from omnikit.yaml.located import Node

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
