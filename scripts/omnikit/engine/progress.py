"""What pip is doing, as a line every few seconds, also while pip itself says nothing."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from typing import Callable, Iterator, Optional

from hostkit.base.health import wait_until

Say = Callable[[str], None]

_DOING = re.compile(r"\s*(Collecting|Downloading|Processing|Using cached) (\S+)(?:.*\(([^()]+)\))?")
_WHEEL = re.compile(r"([^-/]+-[^-/]+)-[^/]*\.whl")
_PORTION = re.compile(r"Progress (\d+) of (\d+)")
_MIB = 1024 * 1024


class Progress:
    """Prints at most one line every interval_s seconds, with the time since it was made.

    Each line begins with what is being made.
    """

    def __init__(self, say: Say, interval_s: float, name: str = "engine") -> None:
        self._say = say
        self._name = name
        self._interval_s = interval_s
        self._began = time.monotonic()
        self._shown = 0.0
        self._doing = ""
        self._package = ""
        self.lines: list[str] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the installation began."""
        return time.monotonic() - self._began

    def step(self, what: str) -> None:
        """A new step: always said."""
        self._doing = what
        self._shown = time.monotonic()
        self._say(f"{self._name}: {what} ({self.elapsed:.0f} s)")

    def doing(self, what: str) -> None:
        """What a step is at: said when some time has passed since the last line."""
        self._doing = what
        self._show()

    def heard(self, line: str) -> None:
        """A line of pip's output: kept for an error message, and shown in short now and then."""
        portion = _PORTION.match(line)
        if portion:
            done, total = int(portion[1]) // _MIB, int(portion[2]) // _MIB
            self._doing = f"downloading {self._package}: {done} of {total} MiB"
        else:
            self.lines.append(line)
            doing = _DOING.match(line)
            if line.startswith("Installing collected packages"):
                self._doing = "installing"
            elif doing:
                last = doing[2].rsplit("/", 1)[-1]
                wheel = _WHEEL.fullmatch(last)
                self._package = wheel[1] if wheel else last
                size = f" ({doing[3]})" if doing[1] == "Downloading" and doing[3] else ""
                self._doing = f"{doing[1].lower()} {self._package}{size}"
        self._show()

    @contextlib.contextmanager
    def watched(self, count: Optional[Callable[[], str]] = None) -> Iterator[None]:
        """While this lasts, say regularly what is being done; count adds how far it is."""
        over = threading.Event()

        def tick() -> bool:
            if not over.is_set():
                self._show(count)
            return over.is_set()

        watch = threading.Thread(
            target=wait_until, args=(tick, float("inf"), self._interval_s), daemon=True
        )
        watch.start()
        try:
            yield
        finally:
            over.set()

    def _show(self, count: Optional[Callable[[], str]] = None) -> None:
        if time.monotonic() - self._shown < self._interval_s or not self._doing:
            return
        self._shown = time.monotonic()
        extra = f", {count()}" if count else ""
        self._say(f"{self._name}: {self._doing}{extra} ({self.elapsed:.0f} s)")
