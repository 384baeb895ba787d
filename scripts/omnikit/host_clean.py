"""Take away from this host what deployments left: servers, containers, files. Never anything else.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from omnikit import host_nodes
from omnikit.errors import InputError

# What a deployment writes below its work directory; logs only go when that is asked for.
_OURS = (
    *("bundle", "scripts", "state", "facts", "jobs", "incoming.pyz", "good.pyz", "host.lock"),
    *("deploy.lock", "audit.jsonl"),
)
_LOGS = "logs"


def clean(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: {"work_dir", "logs": remove them too, "dry_run"}.

    Raises InputError when the folder was not made by a deployment.
    """
    work_dir = Path(parameters["work_dir"])
    if not work_dir.exists():
        return {"changed": False, "stopped": {}, "removed": []}
    host_file = work_dir / "bundle" / "host.json"
    if not host_file.is_file() and not (work_dir / "jobs" / "host.pyz").is_file():
        raise InputError(
            "this folder has nothing that a deployment writes; it is left alone.",
            where=str(work_dir),
            todo="check paths.work_dir",
        )
    names = [*_OURS, _LOGS] if parameters.get("logs") else list(_OURS)
    found = [work_dir / name for name in names if (work_dir / name).exists()]
    if parameters.get("dry_run"):
        return {"changed": False, "stopped": {}, "removed": [str(path) for path in found]}
    stopped = {}
    if host_file.is_file():
        stopped = host_nodes.stop(json.loads(host_file.read_text()), remove=True)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not any(work_dir.iterdir()):
        work_dir.rmdir()
    return {"changed": True, "stopped": stopped, "removed": [str(path) for path in found]}
