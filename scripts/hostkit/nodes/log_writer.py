"""Writes what a node's servers say into their logs, and keeps these by size and number.

A process of its own, started by the supervisor: it lives until the last of those who write has
ended, so the last words of servers are kept when their supervisor was killed. A full disk never
reaches the servers: what cannot be written is counted, and said once there is room again. A log
that somebody shortens, moves or removes (logrotate) is gone on with, or made anew.
Where the supervisor ended without a word, it is killed: this process starts the command that it was
given for that.
Run as a file of its own. Arguments: bytes of a log (0: any), logs kept of each, then pairs of a
pipe's descriptor and a log's path; -- and the descriptor of a pipe that the supervisor alone holds
open, and the command. Standard library only: this runs on the hosts.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import sys
from pathlib import Path

_CHUNK = 1 << 16


class Log:
    """One server's log. The current file is path, older ones path.1, path.2 and so on."""

    def __init__(self, path: Path, most: int, kept: int) -> None:
        self.path = path
        self.most = most
        self.kept = kept
        self.file = -1
        self.inside = False  # the last line has no end yet
        self.lost = 0
        self.why = ""

    def write(self, data: bytes) -> None:
        """Append. A full log is put aside between two lines."""
        try:
            size = self._open()
            while self.most and size + len(data) > self.most:
                end = data.rfind(b"\n", 0, max(0, self.most - size)) + 1
                if not end and (self.inside or not size) and size < 2 * self.most:
                    end = data.find(b"\n") + 1 or len(data)  # a line stays whole, within reason
                self._append(data[:end])
                data = data[end:]
                if not data:
                    return
                put_aside(self.path, self.kept)
                size = self._open()
            self._append(data)
        except OSError as error:
            self.lost += len(data)
            self.why = error.strerror or str(error)

    def _open(self) -> int:
        """Have the file of that name open, which may be another one by now; its size."""
        if self.file >= 0:
            here = os.fstat(self.file)
            with contextlib.suppress(OSError):
                if os.path.samestat(here, self.path.stat()):
                    return here.st_size
            os.close(self.file)
            self.file = -1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.file = os.open(self.path, flags, 0o644)
        return os.fstat(self.file).st_size

    def _append(self, data: bytes) -> None:
        if self.lost:
            said = f"\n[omnikit: about {self.lost} bytes could not be written here: {self.why}]\n"
            data = said.encode() + data
        while data:
            self.inside = not data.endswith(b"\n")
            data = data[os.write(self.file, data) :]
        self.lost = 0


def put_aside(path: Path, kept: int, *, copy: bool = False) -> None:
    """The log and older ones each get the next number; kept: how many, the log among them.

    copy: the log is copied and emptied, for who writes on into the same file.
    """
    for number in range(kept - 1, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}.{number - 1}").replace(f"{path}.{number}")
    if kept > 1 and not copy:
        path.replace(f"{path}.1")
        return
    if kept > 1:
        shutil.copyfile(path, f"{path}.1")
    os.truncate(path, 0)


# Who sends them to all means the servers.
_NOT_MEANT = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def _start(command: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from hostkit.base import run

    for number in _NOT_MEANT:  # a command has them as it would have them anywhere
        signal.signal(number, signal.SIG_DFL)
    run.start(command, output=2)
    for number in _NOT_MEANT:
        signal.signal(number, signal.SIG_IGN)


def main(most: int, kept: int, words: list[str]) -> None:
    """Until nobody writes any more."""
    for number in _NOT_MEANT:
        signal.signal(number, signal.SIG_IGN)
    at = words.index("--")
    pairs, life, command = words[:at], int(words[at + 1]), words[at + 2 :]
    with selectors.DefaultSelector() as ears:
        ears.register(life, selectors.EVENT_READ)
        for pipe, path in zip(pairs[::2], pairs[1::2]):
            ears.register(int(pipe), selectors.EVENT_READ, Log(Path(path), most, kept))
        while ears.get_map():
            for key, _ in ears.select():
                data = os.read(key.fd, _CHUNK)
                if key.fd == life:
                    ears.unregister(life)
                    if not data:
                        _start(command)
                    continue
                if not data:
                    ears.unregister(key.fileobj)
                if data or key.data.lost:
                    key.data.write(data)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
