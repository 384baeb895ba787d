"""The one correction that the installed engine needs, made exactly or not at all.

NIXL's Python API creates its agent with a progress thread that polls without any pause
(pthrDelay = 0, in microseconds): an idle server then keeps a core busy, and three of them a laptop.
There is no setting for it in vLLM or NIXL. The thread is woken by events all the same, so a pause
costs no latency.
"""

from __future__ import annotations

from pathlib import Path

from omnikit.errors import ActionError

FILE = "nixl_cu12/_api.py"
_BEFORE = "agent_config.pthrDelay = 0\n"
_AFTER = "agent_config.pthrDelay = 1000\n"


def calm_nixl(site_packages: Path) -> bool:
    """Give NIXL's progress thread a pause of a millisecond; False when it has it already.

    Raises ActionError when the file does not look as the pinned version's does.
    """
    path = site_packages / FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(_AFTER) == 1 and _BEFORE not in text:
        return False
    if text.count(_BEFORE) != 1:
        raise ActionError(
            f"expected exactly one line {_BEFORE.strip()!r}, found {text.count(_BEFORE)}.",
            where=str(path),
            todo="the pinned nixl-cu12 is not what is installed: install the engine again",
        )
    path.write_text(text.replace(_BEFORE, _AFTER), encoding="utf-8")
    return True
