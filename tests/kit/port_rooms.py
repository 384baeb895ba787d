"""Which ports the sites of a test process may take, so that those of others never meet them.

A port that is free when a site is made may be another's when it is deployed: what is asked of the
kernel tells nothing of what other processes of this run are about to start.
"""

from __future__ import annotations

import os
from typing import Sequence

_WORKERS = 4  # of a run at most


def mine(rooms: Sequence[int]) -> list[int]:
    """This pytest worker's share of rooms (their first ports), from another one on in each run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").lstrip("gw"))
    share = list(rooms[worker % _WORKERS :: _WORKERS])
    first = os.getpid() % len(share)
    return share[first:] + share[:first]
