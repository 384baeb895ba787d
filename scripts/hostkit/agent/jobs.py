"""Jobs that prepare a host. Each is a function of parameters (a JSON object) to a result.

What a job says while it works goes to standard error. Standard library only: this module runs on
the hosts, and in the control host's own process where that is the host.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Callable

from hostkit.base.errors import InputError

Job = Callable[[dict[str, Any]], dict[str, Any]]

# name of the job: (module, function); modules are imported when a job is called for.
_JOBS = {
    "check": ("checks.checks", "check"),
    "reach": ("checks.hccn", "reach"),
    "survey": ("checks.survey", "survey"),
    "warm": ("checks.warm", "warm"),
    "warm-begin": ("checks.warm", "begin"),
    "warm-told": ("checks.warm", "told"),
    "serving": ("checks.serving", "look"),
    "pull": ("containers.images", "pull"),
    "load": ("containers.images", "load"),
    "save": ("containers.images", "save"),
    "spread-look": ("spread.folder", "look"),
    "spread-offer": ("spread.folder", "offer"),
    "spread-compare": ("spread.engine", "compare"),
    "spread-take": ("spread.engine", "take"),
    "spread-describe": ("spread.engine", "describe"),
    "spread-run": ("spread.engine", "run"),
    "layers-look": ("spread.layers", "look"),
    "layers-offer": ("spread.layers", "offer"),
    "layers-load": ("spread.layers", "load"),
    "layers-clear": ("spread.layers", "clear"),
    "caches-look": ("nodes.caches", "look"),
    "caches-keep": ("nodes.caches", "keep"),
    "caches-offer": ("nodes.caches", "offer"),
    "caches-take": ("nodes.caches", "take"),
    "platform": ("containers.images", "platform"),
    "container": ("containers.containers", "ensure"),
    "stop-container": ("containers.containers", "stop"),
    "remove-container": ("containers.containers", "remove"),
    "clean": ("nodes.start_stop", "clean"),
    "lock-look": ("base.lock", "about"),
    "lock": ("base.lock", "lock"),
    "finish": ("base.lock", "finish"),
    "unlock": ("base.lock", "unlock"),
    "code-begin": ("copy.copy", "begin"),
    "code-finish": ("copy.copy", "finish"),
    "proxy-out": ("nodes.roll", "leave_out"),
    "proxy-replace": ("nodes.roll", "replace"),
    "drain": ("nodes.roll", "drain"),
    "history": ("nodes.history", "read"),
    "logs": ("logs.logs", "collect"),
    "symptoms": ("logs.symptoms", "symptoms"),
    "profile-prepare": ("logs.profile", "prepare"),
    "profile-look": ("logs.profile", "look"),
    "profile-collect": ("logs.profile", "collect"),
    "profile-clear": ("logs.profile", "clear"),
    "source": ("source.source_jobs", "fetch"),
    "build": ("source.source_jobs", "build"),
    "install": ("source.packages", "install"),
    "pip-install": ("source.editable", "install"),
    "editable": ("source.editable", "install_here"),
    "packages": ("source.packages", "check"),
    "release-image": ("versions.inside", "look_images"),
    "release": ("versions.inside", "look"),
    "release-inside": ("versions.inside", "look_here"),
}


def names() -> list[str]:
    """All jobs."""
    return list(_JOBS)


def find(name: str) -> Job:
    """A job by its name."""
    if name not in _JOBS:
        raise InputError(f"there is no job {name!r}, found: {', '.join(_JOBS)}.")
    module, function = _JOBS[name]
    job: Job = getattr(import_module(f"hostkit.{module}"), function)
    return job
