"""What another checker says about this host, beside our own checks: MindStudio's msprechecker.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from hostkit.base.errors import ToolkitError
from hostkit.checks.base import Group

_PROGRAM = "msprechecker"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TITLE = "msprechecker"
# Its marks, worst first. Only the first means that something is wrong.
_MARKS = ("[NOK]", "[WARNING]", "[RECOMMEND]")
_MOST = 8


def look(group: Group) -> None:
    """Run it where it is installed. It judges for MindIE and vLLM-Ascend, so it never decides."""
    program = shutil.which(_PROGRAM)
    if program is None or group.given["device_kind"] != "npu":
        return
    try:
        # It may write a script with variables into the current folder.
        with tempfile.TemporaryDirectory(prefix="omnikit-") as folder:
            done = group.ask(program, "precheck", cwd=Path(folder))
    except ToolkitError as error:
        group.unknown("other.msprechecker", _TITLE, error.what)
        return
    lines = findings(f"{done.out}\n{done.err}")
    if not lines and done.code != 0:
        group.unknown("other.msprechecker", _TITLE, done.tail or f"exit status {done.code}")
        return
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    group.add(
        *("other.msprechecker", _TITLE, not any(_MARKS[0] in line for line in lines)),
        found="\n".join([*lines[:_MOST], *more]) or "nothing to say",
        needed="no [NOK]; its advice is for the environment that it runs in, which is not the"
        " servers'",
        todo="msprechecker precheck",
        required=False,
    )


def findings(text: str) -> list[str]:
    """The lines with its marks, worst first, without colours."""
    lines = [_COLOUR.sub("", line).strip(" -\t") for line in text.splitlines()]
    return [line for mark in _MARKS for line in lines if mark in line]
