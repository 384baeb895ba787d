"""Settings besides the hosts: what omni_cli's services and the playbook call them, and we."""

from __future__ import annotations

from typing import Callable

from omnikit.foreign_layout import Layout
from omnikit.foreign_values import number, text
from omnikit.located import Node

Path = tuple[str, ...]


def _length(node: Node, label: str) -> Node:
    return number(node, label, 1, 100_000_000)


def _size(node: Node, label: str) -> Node:
    return number(node, label, 1, 4096)


def _args(role: str) -> Path:
    return ("roles", role, "server", "args", "max-model-len")


_PLACES: dict[str, tuple[Path, Callable[[Node, str], Node]]] = {
    "log_path": (("paths", "log_dir"), text),
    "model_path": (("model", "path"), text),
    "code_path": (("paths", "code_dir"), text),
    "local_code_path": (("paths", "local_code_dir"), text),
    "http_proxy": (("fleet", "http_proxy"), text),
    "docker_image": (("container", "image"), text),
    "prefix.prefill": (("container", "prefix", "prefill"), text),
    "prefix.decode": (("container", "prefix", "decode"), text),
    "prefix.proxy": (("container", "prefix", "proxy"), text),
    "prefill.max_model_len": (_args("prefill"), _length),
    "decode.max_model_len": (_args("decode"), _length),
    "decode.tensor_parallel": (("roles", "decode", "server", "tensor_parallel"), _size),
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
}


def put(layout: Layout, name: str, node: Node, label: str) -> None:
    """Record a setting under our name for it; an empty one says nothing. Raises InputError."""
    if node.value in (None, ""):
        return
    path, convert = _PLACES[name]
    layout.settings[path] = convert(node, label)
