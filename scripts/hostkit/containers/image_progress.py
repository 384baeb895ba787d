"""A running pull or load: its layers counted, a plain line of progress now and then.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import math
import os
import re
import signal
import tempfile
import time
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional

from hostkit.base import health, run
from hostkit.base.log import say

_LAYER = re.compile(r"([0-9a-f]{12}): (.*)")
_BLOB = re.compile(r"Copying blob (?:sha256:)?([0-9a-f]{12})")
_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")
_COPYING = "Copying"
_LOOK_S = 0.1  # between two looks at what the engine said
SAY_S = 5.0  # between two lines of progress
_CHUNK = 1 << 20


@dataclass
class Progress:
    """What an engine has said so far. layers: id to its last state."""

    layers: dict[str, str] = field(default_factory=dict)
    resumed: set[str] = field(default_factory=set)
    digest: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Layers that are on this host."""
        return sum(state in ("Pull complete", "Already exists") for state in self.layers.values())

    @property
    def already(self) -> int:
        """Layers that were on this host before."""
        return sum(state == "Already exists" for state in self.layers.values())

    @property
    def begun(self) -> bool:
        """Whether a layer is about to come. Podman does not say: it names those here as well."""
        return any(state not in ("Already exists", _COPYING) for state in self.layers.values())

    def line(self, text: str) -> None:
        """Take in a line of the engine's output."""
        layer, blob = _LAYER.fullmatch(text.strip()), _BLOB.match(text)
        if layer and layer[2].startswith("Retrying in") and layer[1] not in self.resumed:
            self.resumed.add(layer[1])
            say(f"layer {layer[1]}: the connection was cut; the engine goes on where it was")
        if layer:
            self.layers[layer[1]] = layer[2]
        elif blob:
            self.layers.setdefault(blob[1], _COPYING)
        elif text.strip():
            digest = _DIGEST.match(text)
            self.digest = digest[1] if digest else self.digest
            self.said = [*self.said, text.strip()][-8:]

    def show(self) -> str:
        """How far it is."""
        if not self.layers:
            return "no layer yet"
        if _COPYING in self.layers.values():  # Podman does not say when one is done
            return f"{len(self.layers)} layers"
        return f"{self.done} of {len(self.layers)} layers done"


def watch(
    argv: run.Words,
    what: str,
    *,
    env: Optional[Mapping[str, str]] = None,
    on_begin: Optional[Callable[[], None]] = None,
    say_s: float = SAY_S,
) -> tuple[int, Progress]:
    """Run a command to its end with lines of progress; its exit status and what it said.

    on_begin is called when the first layer is about to come; what it raises ends the command, and
    so does an interrupt.
    """
    progress = Progress()
    started = said = time.monotonic()
    asked = on_begin is None
    with tempfile.TemporaryFile() as output:
        child = run.start(argv, output=output, env=env, tied=True)
        read, rest = 0, b""

        def take(final: bool) -> None:
            nonlocal read, rest
            # pread: the command writes at the position that it shares with this file object.
            while chunk := os.pread(output.fileno(), _CHUNK, read):
                read += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    progress.line(line.decode("utf-8", "replace").rstrip("\r"))
            if final:
                progress.line(rest.decode("utf-8", "replace"))

        def ended() -> bool:
            nonlocal said, asked
            code = child.poll()
            take(final=code is not None)
            if progress.begun and not asked:
                asked = True
                assert on_begin is not None
                on_begin()
            if code is None and time.monotonic() - said >= say_s:
                said = time.monotonic()
                say(f"{what}: {progress.show()}, {said - started:.0f} s")
            return code is not None

        try:
            health.wait_until(ended, math.inf, _LOOK_S)
        except BaseException:
            if child.poll() is None:
                run.end_group(child.pid, signal.SIGTERM)
                child.wait()
            raise
    return child.returncode, progress
