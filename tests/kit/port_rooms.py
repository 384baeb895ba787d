"""Which ports the sites of a test process may take, so that those of others never meet them.

A port that is free when a site is made may be another's when it is deployed: what is asked of the
kernel tells nothing of what other processes of this run are about to start.
"""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress
from typing import Sequence

_WORKERS = 4  # of a run at most


def mine(rooms: Sequence[int]) -> list[int]:
    """This pytest worker's share of rooms (their first ports), from another one on in each run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").lstrip("gw"))
    share = list(rooms[worker % _WORKERS :: _WORKERS])
    first = os.getpid() % len(share)
    return share[first:] + share[:first]


# Nothing plans these, the kernel gives none of them to who asks for any port, nor are they those of
# Ray's workers.
_SINGLE = (*range(22700, 23000), *range(24100, 25000))
_next = itertools.count()


def free_port() -> int:
    """A TCP port of the loopback that nobody has, and that no other test process is given."""
    ports = mine(_SINGLE)
    for _ in ports:
        port = ports[next(_next) % len(ports)]
        with suppress(OSError), socket.create_server(("127.0.0.1", port), reuse_port=False):
            return port
    raise AssertionError("all ports of this test process are taken")
