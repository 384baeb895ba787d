"""Job "check": whether this host is fit to serve. It looks, and changes nothing.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from hostkit.base.errors import ToolkitError
from hostkit.checks import devices, disk, engine, hccn, model, names, network, others, ports, system
from hostkit.checks.base import Group, one_line

Look = Callable[[Group], None]
# In the order of the report. The groups work side by side; none needs what another found.
_GROUPS: tuple[tuple[str, str, Look], ...] = (
    ("system", "system", system.look),
    ("names", "host name", names.look),
    ("network", "network", network.look),
    ("ports", "ports", ports.look),
    ("npu", "NPUs", devices.look),
    ("hccn", "ports of the NPUs", hccn.look),
    ("engine", "container engine", engine.look),
    ("disk", "disks", disk.look),
    ("model", "model", model.look),
    ("other", "msprechecker", others.look),
)


def check(parameters: dict[str, Any]) -> dict[str, Any]:
    """All checks of this host that apply to what is configured, and facts to compare hosts by.

    Returns {"checks": [{"id", "title", "state", "required", "found", "needed", "todo"}...],
    "facts": {...}, "changed": False}; state is ok, warning, failed or unknown. Never raises: a
    group that breaks is a failed check, and the others are made.
    """
    with ThreadPoolExecutor(max_workers=len(_GROUPS)) as pool:
        groups = list(pool.map(lambda one: run_group(one, parameters), _GROUPS))
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
