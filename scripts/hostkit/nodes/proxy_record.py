"""What the launched proxy's record says, and how the nginx that it names is ended.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from hostkit.access.service import Service
from hostkit.base.errors import ActionError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.records import Record, alive, survivors

RECORD = "launch.json"
LOCK = "launch.lock"
INTERVAL_S = 0.02


def read_record(run_dir: Path) -> Optional[Record]:
    """What was started from run_dir, or None."""
    path = run_dir / RECORD
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ActionError(
            f"the record of the proxy cannot be read: {error}.",
            where=str(path),
            todo="see what runs (ps -ef | grep nginx), end it, then remove the file",
        ) from error
    return record


def answers(url: str, timeout_s: float) -> bool:
    own = Service(url, own=url.startswith("https:"))
    return own.request("", timeout_s=timeout_s).status == 200


def is_leaving(worker: int) -> bool:
    """Whether an old worker takes no new connections: nginx says so in its title."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return True
    return not title or b"shutting down" in title  # no title: it just ended


def stop(run_dir: Path, grace_s: float, deadline_s: float) -> str:
    """End the recorded nginx after its requests: stopped, forgotten (a mere record), unchanged."""
    record = read_record(run_dir)
    if record is None:
        return "unchanged"
    ran = bool(survivors(record["process"]))
    end(record, grace_s, deadline_s)
    (run_dir / RECORD).unlink(missing_ok=True)
    return "stopped" if ran else "forgotten"


def end(record: Record, grace_s: float, deadline_s: float) -> None:
    """SIGQUIT: finish the requests in flight; then SIGTERM, SIGKILL. Only the record's session."""
    process = record["process"]
    steps = [(signal.SIGQUIT, grace_s), (signal.SIGTERM, deadline_s), (signal.SIGKILL, deadline_s)]
    for number, wait_s in steps:
        # The master hands SIGQUIT and SIGTERM on; without one, each worker is told.
        told = [int(process["pid"])] if alive(process) else survivors(process)
        if number == signal.SIGKILL:
            told = survivors(process)
        if number == signal.SIGTERM and told:
            say(f"requests were still in flight after {grace_s:g} s: they are cut off")
        for pid in told:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_until(lambda: not survivors(process), wait_s, INTERVAL_S):
            return
    raise ActionError(
        f"nginx (pid {process['pid']}) does not react to SIGKILL.",
        todo=f"see what it waits for: ps -o pid,stat,wchan:30,args -g {process['pid']}",
    )


def status(run_dir: Path, timeout_s: float) -> dict[str, Any]:
    """What runs: state is running, silent (it does not answer), died or stopped."""
    record = read_record(run_dir)
    if record is None:
        return {"state": "stopped", "run_dir": str(run_dir)}
    members = survivors(record["process"])
    leaving = [pid for pid in members if is_leaving(pid)]
    state = "died"
    if alive(record["process"]):
        state = "running" if answers(record["health_url"], timeout_s) else "silent"
    return {
        "state": state,
        "run_dir": str(run_dir),
        "pid": record["process"]["pid"],
        "kind": record["kind"],
        "listen": f"{record['host']}:{record['port']}",
        "workers": len(members) - len(leaving) - (state != "died"),
        "finishing": len(leaving),
        "error_log": record["error_log"],
        "since": record["since"],
    }
