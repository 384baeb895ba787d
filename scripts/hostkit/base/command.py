"""A long command on this host: its output in a file, a plain line of progress now and then."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Mapping, Optional

from hostkit.base import health, run
from hostkit.base.log import say

SAY_S = 5.0  # between two lines of progress
_LOOK_S = 0.1  # between two looks at the command
_GRACE_S = 10.0  # from SIGTERM to SIGKILL
_TAIL = 65536  # bytes of the output that an error message is made from
_ENDS = re.compile("[\r\n]+")


@dataclass(frozen=True)
class Ended:
    """A command that has ended. said: the end of its output; stalled: it was ended for silence."""

    code: int
    said: str
    stalled: bool = False

    @property
    def tail(self) -> str:
        """The last lines, for an error message."""
        return "\n".join(_lines(self.said)[-12:])


def watch(
    argv: run.Words,
    what: str,
    *,
    log: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    stall_s: float = math.inf,
    over: Optional[Callable[[float], bool]] = None,
    on_start: Optional[Callable[[int], None]] = None,
    on_line: Optional[Callable[[str], None]] = None,
    hide: Callable[[str], str] = str,
    show: Optional[Callable[[float], str]] = None,
    say_s: float = SAY_S,
) -> Ended:
    """Run a command to its end, with what it says last as a line of progress.

    log: where its output goes, else nowhere; stall_s: silence after which it is ended; over: says
    after so many seconds whether it has to be ended, as if it were silent; on_start gets its pid,
    which is also its session's; on_line gets each line that it says, as it comes; hide takes
    secrets out of what is shown; show says how far it is after so many seconds, instead of its last
    line. An interrupt, and what a callback raises, ends all of it.
    """
    with ExitStack() as stack:
        output: IO[bytes]
        if log is None:
            output = stack.enter_context(tempfile.TemporaryFile())
        else:
            output = stack.enter_context(log.open("w+b"))
        child = run.start(argv, output=output, env=env, cwd=cwd, tied=True)
        watched = _Watched(child, output, what, stall_s, hide, say_s, on_line, show, over)
        try:
            if on_start is not None:
                on_start(child.pid)
            health.wait_until(watched.ended, math.inf, _LOOK_S)
        except BaseException:
            end(child)
            raise
        if watched.stalled:
            end(child)
        return Ended(child.wait(), hide(watched.tail()), watched.stalled)


class _Watched:
    def __init__(
        self,
        child: subprocess.Popen[bytes],
        output: IO[bytes],
        what: str,
        stall_s: float,
        hide: Callable[[str], str],
        say_s: float,
        on_line: Optional[Callable[[str], None]],
        show: Optional[Callable[[float], str]],
        over: Optional[Callable[[float], bool]],
    ) -> None:
        self.child, self.output, self.what = child, output, what
        self.stall_s, self.hide, self.say_s = stall_s, hide, say_s
        self.on_line, self.show, self.over = on_line, show or self.last, over
        self.began = self.spoke = self.grew = time.monotonic()
        self.size = self.read = 0
        self.rest = b""
        self.stalled = False

    def ended(self) -> bool:
        """Look once; True when the command has ended, or has to be."""
        over = self.child.poll() is not None
        self.hand_on(over)
        if over:
            return True
        now, size = time.monotonic(), os.fstat(self.output.fileno()).st_size
        if size != self.size:
            self.size, self.grew = size, now
        self.stalled = now - self.grew > self.stall_s
        if self.over is not None and self.over(now - self.began):
            self.stalled = True
        if now - self.spoke >= self.say_s:
            self.spoke = now
            say(f"{self.what}: {self.show(now - self.began)}")
        return self.stalled

    def hand_on(self, over: bool) -> None:
        """Hand on the lines that have come since the last look."""
        if self.on_line is None:
            return
        while chunk := os.pread(self.output.fileno(), _TAIL, self.read):
            self.read += len(chunk)
            *lines, self.rest = (self.rest + chunk).split(b"\n")
            for line in lines:
                self.on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if over:
            self.on_line(self.rest.decode("utf-8", "replace"))

    def last(self, seconds: float) -> str:
        """What it said last."""
        line = (_lines(self.tail(2048)) or ["nothing said yet"])[-1]
        return f"{self.hide(line)[:120]} ({seconds:.0f} s)"

    def tail(self, size: int = _TAIL) -> str:
        """The end of the output."""
        number = self.output.fileno()
        # pread: the command writes at the position that it shares with this file object.
        start = max(0, os.fstat(number).st_size - size)
        return os.pread(number, size, start).decode("utf-8", "replace")


def end(child: subprocess.Popen[bytes]) -> None:
    """End a command that run.start started, with all of its group; returns when it is gone."""
    if not run.end_group(child.pid, signal.SIGTERM) and child.poll() is not None:
        return
    if not health.wait_until(lambda: not _left(child), _GRACE_S, _LOOK_S):
        run.end_group(child.pid, signal.SIGKILL)
    child.wait()


def _left(child: subprocess.Popen[bytes]) -> bool:
    child.poll()  # collects it: a zombie would count as a member of its group
    return run.end_group(child.pid, 0)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in _ENDS.split(text) if line.strip()]
