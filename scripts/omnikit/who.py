"""Who works with this toolkit: user, machine and folder, as locks and audit files name them."""

from __future__ import annotations

import socket

from omnikit.host_records import user_name
from omnikit.layers import PROJECT


def am_i() -> str:
    """For example ann@bastion:/opt/omnikit."""
    return f"{user_name()}@{socket.gethostname()}:{PROJECT}"
