"""The conversion itself: msmodelslim as a child, its words on the terminal and in a log."""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path
from typing import Callable, Mapping

from omnikit import log, run
from omnikit.engine_progress import Progress
from omnikit.errors import ActionError
from omnikit.weights import (
    checkpoint_files,
    msmodelslim_failures,
    msmodelslim_result,
    msmodelslim_tool,
)
from omnikit.weights.msmodelslim_tool import Tool

Say = Callable[[str], None]
_BAR = re.compile(r"\d+%\|.*\|")
_BAR_EVERY_S = 10.0
_SIGN_EVERY_S = 60.0
_KEPT = 200
_SHOWN = 15


def convert(
    tool: Tool, source: Path, folder: Path, environment: Mapping[str, str], log_file: Path
) -> None:
    """Fill an empty folder. Raises ActionError with the last lines and the likely cause."""
    words = msmodelslim_tool.command(tool, source, folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    lines: deque[str] = deque(maxlen=_KEPT)

    def heard(line: str) -> None:
        if line.strip():
            lines.append(line)
            if bars.show(line):
                log.say(line)

    def size() -> str:
        count, written = checkpoint_files.written(folder)
        return f"{count} weight files, {written / 2**30:.1f} GiB written"

    bars = Bars(_BAR_EVERY_S)
    with log.recording(log_file):
        progress = Progress(log.say, _SIGN_EVERY_S, name="msmodelslim")
        progress.step(f"converting; all it says is in {log_file}")
        log.say(msmodelslim_tool.shown(tool, source, folder, environment))
        with progress.watched(size):
            code = run.stream(words, heard, env=environment, cwd=tool.script.parent, redrawn=True)
        log.say(f"msmodelslim: ended with status {code} after {progress.elapsed:.0f} s, {size()}")
    if code:
        raise failure(list(lines), code, log_file)
    problems = msmodelslim_result.problems(source, folder)
    if problems:
        raise ActionError(
            f"msmodelslim ended well, but its result is not whole: {'; '.join(problems)}.",
            where=str(folder),
            todo=f"read {log_file}; the same command again starts the conversion anew",
        )


class Bars:
    """Which lines to show: all, but of a progress bar that is redrawn only now and then."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._shown = float("-inf")

    def show(self, line: str) -> bool:
        """Whether to show this line now. A full bar is always shown."""
        if not _BAR.search(line) or "100%|" in line:
            return True
        if time.monotonic() - self._shown < self._every_s:
            return False
        self._shown = time.monotonic()
        return True


def failure(lines: list[str], code: int, log_file: Path) -> ActionError:
    """The error that says how the tool died."""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    shown = "\n".join(f"    {line}" for line in lines[-_SHOWN:])
    cause = msmodelslim_failures.likely(lines, code)
    text = f"msmodelslim {how}. Its last lines:\n{shown}"
    if cause:
        text += f"\n  Likely cause: {cause.cause}."
    todo = f"{cause.todo}; then" if cause else f"read {log_file}; then"
    return ActionError(text, todo=f"{todo} the same command again, which starts this step anew")
