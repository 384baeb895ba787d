"""Who holds a port, and how much memory is left."""

from __future__ import annotations

import os
import socket

import pytest
from port_rooms import free_port

from hostkit.nodes import taken_ports


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_is_seen_and_named(address: str) -> None:
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        assert taken_ports.is_taken("127.0.0.1", port)
        assert f"pid {os.getpid()} (" in taken_ports.owner(port)


def test_a_free_port_is_free() -> None:
    assert not taken_ports.is_taken("127.0.0.1", free_port())


def test_memory_is_a_plausible_number() -> None:
    left = taken_ports.memory_available_mib()
    assert left is not None and 10 < left < 10**8
