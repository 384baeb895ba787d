"""How far a long piece of work is: bytes, rate and time left, a line every few seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Callable

from hostkit.base.log import duration, size_text

_FIRST_S = 2.0  # what is over by then needs no progress
_EVERY_S = 5.0
_WINDOW = 6  # lines: the rate is of the last half minute


class Meter:
    """Counts bytes of several threads. total: bytes of all. say: gets the lines."""

    def __init__(self, total: int, say: Callable[[str], None], verb: str = "converted") -> None:
        self.total = total
        self.say = say
        self.verb = verb
        self.lock = threading.Lock()
        self.done = 0
        self.skipped = 0
        self.began = time.monotonic()
        self.next = self.began + _FIRST_S
        self.marks = deque([(self.began, 0)], _WINDOW)

    def add(self, count: int) -> None:
        """count more bytes are done."""
        with self.lock:
            self.done += count
            now = time.monotonic()
            if now < self.next:
                return
            self.next = now + _EVERY_S
            line = self.line(now)
            self.marks.append((now, self.done))
        self.say(line)

    def skip(self, count: int) -> None:
        """count bytes need nothing: an earlier run did them."""
        with self.lock:
            self.skipped += count

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def line(self, now: float) -> str:
        """For example: 12.3 of 641.2 GiB converted, 1.21 GiB/s, 9 min left."""
        since, before = self.marks[0]
        rate = (self.done - before) / max(1e-9, now - since)
        left = (self.total - self.done - self.skipped) / max(1.0, rate)
        done = self.done + self.skipped
        of_all = f"{size_text(done)} of {size_text(self.total)} {self.verb}"
        return f"{of_all}, {size_text(rate)}/s, {duration(left)} left"
