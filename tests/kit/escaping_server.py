"""The stand-in server, which first starts helpers that leave its session. Words: see escape()."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import stand_in_server


def escape(how: str) -> None:
    """A helper that lives on: setsid, double (fork twice), bare (without environment), deaf."""
    if os.fork():
        return
    os.setsid()
    if "double" in how and os.fork():
        os._exit(0)
    if "deaf" in how:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    code = f"import time, sys; time.sleep(600)  # {sys.argv[1]}"
    with Path(os.devnull).open("r+b") as nothing:
        for number in range(3):
            os.dup2(nothing.fileno(), number)
    os.execve(sys.executable, ["helper", "-c", code], {} if "bare" in how else dict(os.environ))


if __name__ == "__main__":
    escape(sys.argv[2])
    sys.argv = [sys.argv[0], sys.argv[1], *sys.argv[3:]]
    stand_in_server.main()
