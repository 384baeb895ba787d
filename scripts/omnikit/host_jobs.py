"""Jobs that prepare a host. Each is a function of parameters (a JSON object) to a result.

What a job says while it works goes to standard error. Standard library only: this module runs on
the hosts, and in the control host's own process where that is the host.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Callable

from omnikit.errors import InputError

Job = Callable[[dict[str, Any]], dict[str, Any]]

# name of the job: (module, function); modules are imported when a job is called for.
_JOBS = {
    "check": ("host_checks", "check"),
    "reach": ("host_reach", "reach"),
    "pull": ("host_image", "pull"),
    "load": ("host_image", "load"),
    "save": ("host_image", "save"),
    "container": ("host_container", "ensure"),
    "stop-container": ("host_container", "stop"),
    "remove-container": ("host_container", "remove"),
    "clean": ("host_clean", "clean"),
    "unlock": ("host_lock", "unlock"),
    "code-begin": ("host_code", "begin"),
    "code-finish": ("host_code", "finish"),
    "proxy-out": ("host_roll", "leave_out"),
    "drain": ("host_roll", "drain"),
    "logs": ("host_logs", "collect"),
    "symptoms": ("host_symptoms", "symptoms"),
    "profile-prepare": ("host_profile", "prepare"),
    "profile-look": ("host_profile", "look"),
    "profile-collect": ("host_profile", "collect"),
    "profile-clear": ("host_profile", "clear"),
    "source": ("host_source", "fetch"),
    "build": ("host_source", "build"),
    "install": ("host_packages", "install"),
    "pip-install": ("host_editable", "install"),
    "editable": ("host_editable", "install_here"),
    "packages": ("host_packages", "check"),
}


def names() -> list[str]:
    """All jobs."""
    return list(_JOBS)


def find(name: str) -> Job:
    """A job by its name."""
    if name not in _JOBS:
        raise InputError(f"there is no job {name!r}, found: {', '.join(_JOBS)}.")
    module, function = _JOBS[name]
    job: Job = getattr(import_module(f"omnikit.{module}"), function)
    return job
