"""Job "check": whether this host is fit to serve, and what MindStudio's msprechecker says of it.

It looks, and changes nothing.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from hostkit.base.errors import ToolkitError
from hostkit.checks import devices, disk, engine, hccn, model, network, ports, system
from hostkit.checks.base import Group, one_line

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


Look = Callable[[Group], None]
# In the order of the report. The groups work side by side; none needs what another found.
_GROUPS: tuple[tuple[str, str, Look], ...] = (
    ("system", "system", system.look),
    ("names", "host name", network.look_at_names),
    ("network", "network", network.look),
    ("ports", "ports", ports.look),
    ("npu", "NPUs", devices.look),
    ("hccn", "ports of the NPUs", hccn.look),
    ("engine", "container engine", engine.look),
    ("disk", "disks", disk.look),
    ("model", "model", model.look),
    ("other", "msprechecker", look),
)


def check(parameters: dict[str, Any]) -> dict[str, Any]:
    """All checks of this host that apply to what is configured, and facts to compare hosts by.

    Returns {"checks": [{"id", "title", "state", "required", "found", "needed", "todo"}...],
    "facts": {...}, "changed": False}; state is ok, warning, failed or unknown. Never raises: a
    group that breaks is a failed check, and the others are made. parameters may name the groups.
    """
    only = parameters.get("groups")
    chosen = [one for one in _GROUPS if only is None or one[0] in only]
    with ThreadPoolExecutor(max_workers=len(_GROUPS)) as pool:
        groups = list(pool.map(lambda one: run_group(one, parameters), chosen))
    facts: dict[str, Any] = {}
    for group in groups:
        facts.update(group.facts)
    checks = [one for group in groups for one in group.checks]
    return {"checks": checks, "facts": facts, "changed": False}


def run_group(one: tuple[str, str, Look], parameters: dict[str, Any]) -> Group:
    """One group's findings; what it had found before it broke is kept."""
    name, title, look = one
    group = Group(parameters)
    try:
        look(group)
    except ToolkitError as error:
        group.error(f"{name}.looked", f"checks of: {title}", error, needed="an answer")
    except OSError as error:  # of a path, which is the host's fault and not the checks'
        group.add(
            *(f"{name}.looked", f"checks of: {title}", False),
            found=f"{error.filename or 'a look'}: {error.strerror or error}",
            needed="what can be read",
            todo=f"ls -ld {error.filename}" if error.filename else "",
        )
    except Exception as error:
        group.add(
            *(f"{name}.looked", f"checks of: {title}", False),
            found=f"these checks broke: {type(error).__name__}: {one_line(str(error))}",
            needed="an answer",
            todo="report this line; the other checks are not affected",
        )
    return group
