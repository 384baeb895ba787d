"""Log lines in vLLM 0.9.0's format, and how its engine dies (core.py, run_engine_core)."""

from __future__ import annotations

import sys
import time
from typing import NoReturn


class Fault(Exception):
    """What the engine dies of.

    where: FILE:LINE that the log line names. trace: the traceback's lines before the error.
    """

    def __init__(self, error: str, *trace: str, where: str = "core.py:500") -> None:
        super().__init__(error)
        self.error = error
        self.trace = trace
        self.where = where


def say(where: str, text: str, level: str = "INFO") -> None:
    """One line of the log. All servers write whole lines: several may share a file."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    sys.stdout.write(f"{level} {stamp} [{where}] {text}\n")
    sys.stdout.flush()


def die(fault: Fault) -> NoReturn:
    """The engine's traceback, the API server's own, and the end."""
    for line in ("EngineCore failed to start.", "Traceback (most recent call last):", *fault.trace):
        say(fault.where, line, "ERROR")
    for line in fault.error.splitlines():
        say(fault.where, line, "ERROR")
    # v1/engine/core_client.py, _wait_for_engine_startup
    sys.stdout.write(
        "Traceback (most recent call last):\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    sys.stdout.flush()
    sys.exit(1)
