"""The twin of Ray: a head that knows its hosts and their NPUs, and what callers ask of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Optional

# Where `ray start` leaves the head's address, as Ray does below /tmp/ray.
ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")
_address: Optional[tuple[str, int]] = None


def _ask(place: tuple[str, int]) -> list[dict[str, Any]]:
    with socket.create_connection(place, timeout=5) as head:
        head.sendall(b'{"ask": "nodes"}\n')
        return list(json.loads(head.makefile().readline()))


def init(address: str, **_: Any) -> None:
    """Connect to a head; raises ConnectionError."""
    global _address
    host, _colon, port = address.rpartition(":")
    _ask((host, int(port)))
    _address = (host, int(port))


def is_initialized() -> bool:
    """Whether init() was called."""
    return _address is not None


def shutdown() -> None:
    """Forget the head."""
    global _address
    _address = None


def nodes() -> list[dict[str, Any]]:
    """As Ray gives them."""
    if _address is None:
        raise RuntimeError("Ray has not been started yet.")
    return [
        {
            "Alive": True,
            "NodeManagerAddress": node["ip"],
            "Resources": {"NPU": float(len(node["devices"]))} if node["devices"] else {},
        }
        for node in _ask(_address)
    ]


def cluster_resources() -> dict[str, float]:
    """All hosts together."""
    found = sum(node["Resources"].get("NPU", 0.0) for node in nodes())
    return {"NPU": found} if found else {}


def twin_nodes() -> list[dict[str, Any]]:
    """For the twin of vLLM: hosts with devices, their SERVER_OFFSET, and which is this one."""
    from vllm.twin.log import Fault

    try:
        host, _colon, port = ADDRESS_FILE.read_text().strip().rpartition(":")
        found = _ask((host, int(port)))
    except (OSError, ValueError) as error:
        raise Fault(
            "ConnectionError: Could not find any running Ray instance. Please specify the one to"
            " connect to by setting `--address` flag or `RAY_ADDRESS` environment variable."
        ) from error
    if not any(node["devices"] for node in found):
        raise Fault("ValueError: Current node has no NPU available. current_node_resource={}")
    return [{**node, "here": node["pid"] == _own_daemon()} for node in found]


def _own_daemon() -> int:
    try:
        return int(ADDRESS_FILE.with_name("daemon.pid").read_text())
    except (OSError, ValueError):
        return 0
