"""What an engine says while it builds: the step it is at, and what its failure means.

Understands Docker's two builders and Podman.
"""

from __future__ import annotations

import re
import time
from typing import Callable, Optional

from omnikit.engine_progress import Progress, Say
from omnikit.errors import ActionError
from omnikit.host_image_fault import SPACE, read

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STEP = re.compile(
    r"(?:\[\d+/\d+\] )?(?:Step|STEP) (?P<number>\d+)/(?P<of>\d+)\s*: (?P<what>.*)"
    r"|#\d+ \[(?:[\w.-]+ )*(?P<kit>\d+)/(?P<kit_of>\d+)\] (?P<kit_what>.*)"
)
_KIT_PREFIX = re.compile(r"#\d+ (?:[\d.]+ )?")
_NO_PACKAGES = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect to|Unable to connect to"
    r"|Failed to fetch|Unable to fetch some archives|Connection failed"
)
_LINES = 12  # of the engine's last words in an error
_WIDTH = 80


class BuildOutput(Progress):
    """Says each step as it begins, and every few seconds the last line of a long one."""

    def __init__(self, say: Say, interval_s: float, name: str) -> None:
        super().__init__(say, interval_s, name)
        self.at = ""
        self._heard_at = 0.0

    def heard(self, line: str) -> None:
        """A line of the engine's output."""
        text = _COLOUR.sub("", line).strip()
        step = _STEP.match(text)
        if step:
            number, of = step["number"] or step["kit"], step["of"] or step["kit_of"]
            at = f"step {number} of {of}: {_short(step['what'] or step['kit_what'])}"
            if at != self.at:
                self.at = at
                self.step(at)
            return
        text = _KIT_PREFIX.sub("", text, count=1)
        if text:
            self.lines = [*self.lines, text][-200:]
            self._heard_at = time.monotonic()
            self.doing(_short(text))

    def _show(self, count: Optional[Callable[[], str]] = None) -> None:
        """What was said last may be long over: then the step tells more."""
        if time.monotonic() - self._heard_at >= self._interval_s:
            self._doing = self.at or self._doing
        super()._show(count)


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _WIDTH else f"{one_line[:_WIDTH]}…"


def failure(output: BuildOutput, engine: str, place: Optional[str]) -> ActionError:
    """One error with the step that failed, what the engine said last, and what to do."""
    said = "\n".join(f"  {line}" for line in output.lines[-_LINES:])
    at = f"at {output.at}" if output.at else "before the first step"
    text = "\n".join(output.lines)
    if read(text, "", engine=engine, registry="").kind == SPACE:
        return ActionError(
            f"the disk is full; the build ended {at}. What it had made was removed.\n{said}",
            where=place,
            todo=f"make room: {engine} system df; {engine} image prune; then run this again",
        )
    if _NO_PACKAGES.search(text):
        return ActionError(
            f"the build ended {at}: Debian's packages cannot be fetched.\n{said}",
            todo="check the network and http_proxy, or name another mirror:"
            " --build-arg APT_MIRROR=http://HOST/debian",
        )
    return ActionError(
        f"the build ended {at}.\n{said}",
        todo="mend that, then run this again: steps that were done are kept",
    )
