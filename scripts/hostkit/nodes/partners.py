"""The other parts of an instance over several hosts, as one of them sees them.

No host is told that a part on another one has ended, and what computed together with it hangs or
fails in its own time. So each part looks at a port of the others, and ends and starts again when
one of them has gone: then all of them meet anew. Its port stays closed for longer than the others
need to see that (see omnikit.prepare.deployment).
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Sequence

from hostkit.base import lock

LOOK_S = 2  # between two looks
_LOOKS = 2  # that find a port closed, one after the other, before it counts
_CONNECT_S = 1.0

Place = tuple[str, str, int]  # name of the part, address, port


class Partners:
    """Those that were there since this part was ready: others may still be on their way."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.missed: dict[str, int] = {}  # looks in a row, by part
        self.looked = 0.0

    def forget(self) -> None:
        """This part starts anew."""
        self.missed.clear()

    def gone(self, places: Sequence[Place]) -> str:
        """Which part has gone, in words; "": none, or this is not the time to look. While a command
        changes this host it decides itself what ends.
        """
        if not places or time.monotonic() - self.looked < LOOK_S:
            return ""
        self.looked = time.monotonic()
        answers = open_ports([(address, port) for _, address, port in places])
        changed = lock.holder(self.work_dir) is not None
        for (name, address, port), there in zip(places, answers):
            if there:
                self.missed[name] = 0
            elif name in self.missed and not changed:
                self.missed[name] += 1
                if self.missed[name] >= _LOOKS:
                    return f"its part {name} ({address}:{port}) has gone"
        return ""


def open_ports(places: Sequence[tuple[str, int]]) -> list[bool]:
    """Which of these TCP ports take a connection, asked at the same time."""
    found = [False] * len(places)
    with ExitStack() as opened:
        waiting: dict[int, tuple[int, socket.socket]] = {}
        poll = select.poll()
        for number, (address, port) in enumerate(places):
            try:
                family, kind, proto, _, where = socket.getaddrinfo(
                    address, port, type=socket.SOCK_STREAM
                )[0]
                probe = opened.enter_context(socket.socket(family, kind, proto))
                probe.setblocking(False)
                probe.connect_ex(where)
            except OSError:
                continue
            waiting[probe.fileno()] = (number, probe)
            poll.register(probe, select.POLLOUT)
        end = time.monotonic() + _CONNECT_S
        while waiting and (left := end - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                number, probe = waiting.pop(descriptor)
                poll.unregister(descriptor)
                found[number] = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    return found
