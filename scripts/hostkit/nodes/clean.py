"""Take away from this host what deployments left: servers, containers, files. Never anything else.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hostkit.agent.unpack import read_host
from hostkit.base import lock as base_lock
from hostkit.base.errors import InputError
from hostkit.base.records import locked
from hostkit.nodes import start_stop

# What a deployment writes below its work directory; logs only go when that is asked for.
_OURS = (
    *("bundle", "scripts", "state", "facts", "jobs", "archives", "run"),
    *("incoming.pyz", "good.pyz"),  # of earlier versions
)
_LOGS = "logs"


def clean(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: {"work_dir", "logs": remove them too, "dry_run", "run": which holds the
    lock}. The lock goes with it, another's never, and the audit file stays.

    Raises InputError when the folder was not made by a deployment, or its lock is another's.
    """
    work_dir = Path(parameters["work_dir"])
    if not work_dir.exists():
        return {"changed": False, "stopped": {}, "removed": []}
    if not base_lock.is_ours(work_dir):
        raise InputError(
            "this folder has nothing that a deployment writes; it is left alone.",
            where=str(work_dir),
            todo="check paths.work_dir",
        )
    names = [*_OURS, _LOGS] if parameters.get("logs") else list(_OURS)
    found = [work_dir / name for name in names if (work_dir / name).exists()]
    if parameters.get("dry_run"):
        return {"changed": False, "stopped": {}, "removed": [str(path) for path in found]}
    run = str(parameters.get("run", ""))
    with locked(work_dir / base_lock.FLOCK, "clean-up", float(parameters.get("wait_s", 0))):
        base_lock.check(work_dir, run)
        stopped = {}
        if (work_dir / "state").is_dir():
            stopped = start_stop.stop(read_host(work_dir), remove=True)
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if run:
            lock = base_lock.release(work_dir, run)
            assert lock is not None  # just checked
            base_lock.audit(work_dir, lock["owner"], lock["what"], "ok")
        (work_dir / base_lock.FLOCK).unlink(missing_ok=True)
    if not any(work_dir.iterdir()):
        work_dir.rmdir()
    return {"changed": True, "stopped": stopped, "removed": [str(path) for path in found]}
