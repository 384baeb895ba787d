"""The logs of a node's servers, from the supervisor's side: pipes, and the process that writes.

Each start adds to the logs: a line with a token of its own says where it begins, and what came
before does not count for it. What a server writes by itself (nginx) is put aside when it is full.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base import records, run
from hostkit.base.errors import ToolkitError
from hostkit.base.health import wait_until
from hostkit.base.records import Record, alive, identity
from hostkit.nodes import log_writer

_OWN = re.compile(r'^\s*(?:error|access)_log "([^"]+)"', re.MULTILINE)
_F_SETPIPE_SZ = 1031  # of linux/fcntl.h; Python names it from 3.10 on
_PIPE = 1 << 20  # bytes that wait at the most while the disk is busy
_DRAIN_S = 2


class ServerLogs:
    """node: one entry of host.json's nodes; host: the whole file's data."""

    def __init__(self, host: dict[str, Any], node: dict[str, Any]) -> None:
        self.host, self.node = host, node
        self.most, self.kept = host["logs"]["bytes"], host["logs"]["files"]
        self.life: Optional[int] = None  # ends with this process
        self.to_read: dict[str, int] = {}  # the ends of each server's pipe
        self.to_write: dict[str, int] = {}
        self.writer: Optional[Record] = None

    @property
    def pid(self) -> Optional[int]:
        """Of the process that writes."""
        return self.writer["pid"] if self.writer else None

    def open(self) -> Optional[Record]:
        """Pipes for all servers and the process that writes them; who that is."""
        for server in self.node["servers"]:
            name = server["name"]
            self.to_read[name], self.to_write[name] = os.pipe()
            with suppress(OSError):
                fcntl.fcntl(self.to_read[name], _F_SETPIPE_SZ, _PIPE)
        self._start()
        return self.writer

    def _start(self) -> None:
        words = [sys.executable, "-I", "-S", log_writer.__file__, str(self.most), str(self.kept)]
        for server in self.node["servers"]:
            words += [str(self.to_read[server["name"]]), server["log"]]
        self._farewell()
        watched, self.life = os.pipe()
        work_dir = Path(self.host["work_dir"])
        words += ["--", str(watched), sys.executable, str(work_dir / "scripts/launch_servers.py")]
        words += ["--host-file", str(work_dir / "bundle" / "host.json")]
        words += ["--node", self.node["name"], "--take-over"]
        try:
            child = run.start(words, output=2, keep=(*self.to_read.values(), watched))
        finally:
            os.close(watched)
        self.writer = identity(child.pid)

    def _farewell(self) -> None:
        """Tell the process that writes that this one ends in order."""
        if self.life is not None:
            with suppress(BrokenPipeError):
                os.write(self.life, b".")
            os.close(self.life)
            self.life = None

    def begin(self, server: dict[str, Any], token: str) -> int:
        """Where a server that starts writes to; its start is said there."""
        end, at = self.to_write[server["name"]], time.strftime("%Y-%m-%dT%H:%M:%S")
        os.write(end, f"{start_line(server['name'], at, token)}\n".encode())
        return end

    def begin_again(self, server: dict[str, Any], token: str) -> int:
        """The same for one that starts beside others."""
        read_end = self.to_read[server["name"]]
        self.to_write[server["name"]] = os.open(f"/proc/self/fd/{read_end}", os.O_WRONLY)
        return self.begin(server, token)

    def begun(self) -> None:
        """All servers have their pipes: nobody else holds them open to write."""
        while self.to_write:
            os.close(self.to_write.popitem()[1])

    def ended(self, pid: int, status: int) -> None:
        """A process has ended: if it is the one that writes, and not by itself, it is missed."""
        if self.writer and pid == self.writer["pid"] and status:
            self.writer = None

    def tend(self, servers: Sequence[int]) -> bool:
        """Start the process that writes again if it was killed; put full logs aside that servers
        (these processes) write themselves. True when another process writes now.
        """
        for path in self._own():
            with suppress(OSError):
                if self.most and path.stat().st_size > self.most:
                    # nginx opens its logs anew; its workers, who are not root, must come there.
                    copy = os.geteuid() == 0 and any(not p.stat().st_mode & 1 for p in path.parents)
                    log_writer.put_aside(path, self.kept, copy=copy)
                    for pid in servers:
                        os.kill(pid, signal.SIGUSR1)
        if self.writer is not None:
            return False
        with suppress(ToolkitError):
            self._start()
        return self.writer is not None

    def _own(self) -> list[Path]:
        """Logs that nginx writes itself."""
        with suppress(OSError, KeyError):
            if "nginx.conf" in self.node["files"]:
                text = (Path(self.node["temp_dir"]) / "nginx.conf").read_text(encoding="utf-8")
                return [Path(path) for path in dict.fromkeys(_OWN.findall(text))]
        return []

    def drained(self, name: str) -> None:
        """Wait until what a server said has been read, so that its end is there to be seen."""

        def empty() -> bool:
            waiting = fcntl.ioctl(self.to_read[name], termios.FIONREAD, b"\0\0\0\0")
            return int.from_bytes(waiting, sys.byteorder) == 0

        wait_until(empty, _DRAIN_S, 0.01)

    def close(self, seconds: float) -> None:
        """All servers have ended: so does the process that writes, or is made to."""
        self.begun()
        self._farewell()
        end_writer(self.writer, seconds)
        while self.to_read:
            os.close(self.to_read.popitem()[1])


def end_writer(writer: Optional[Record], seconds: float) -> None:
    """Wait until the process that writes has written all; one that does not end is ended."""
    if writer and not wait_until(lambda: not alive(writer), seconds, 0.02):
        pid = records.pid_here(writer)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start_line(name: str, at: str, token: str) -> str:
    """What stands in a log where a start begins."""
    return f"[omnikit: {name} starts, {at}, {token}]"


def since_start(data: bytes, token: Optional[str]) -> int:
    """Where in the end of a log a start's lines begin: 0 when it began before, or was put aside."""
    found = data.rfind(f", {token}]\n".encode()) if token else -1
    return data.find(b"\n", found) + 1 if found >= 0 else 0
