"""Who is changing this host, and who did: a lock that outlives its holder, and an audit file.

The lock keeps two people on two machines apart. It names its owner and age and goes only by its
owner's hand, or deliberately (invoke unlock).
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from omnikit.errors import InputError
from omnikit.host_records import write_atomically

LOCK, AUDIT = "deploy.lock", "audit.jsonl"
Lock = dict[str, Any]


def holder(work_dir: Path) -> Optional[Lock]:
    """Who holds the lock: {"owner", "what", "since"}; None when nobody does."""
    try:
        found: Lock = json.loads((work_dir / LOCK).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"owner": "unknown", "what": "unknown", "since": 0}
    return found


def take(work_dir: Path, owner: str, what: str) -> None:
    """Take the lock, also again. Raises InputError that names another owner and the lock's age."""
    work_dir.mkdir(parents=True, exist_ok=True)
    mine = json.dumps({"owner": owner, "what": what, "since": time.time()}) + "\n"
    beside = work_dir / f".{LOCK}.{secrets.token_hex(4)}"
    write_atomically(beside, mine)
    try:
        with suppress(FileExistsError):
            os.link(beside, work_dir / LOCK)
            return
        other = holder(work_dir)
        if other is not None and other["owner"] != owner:
            raise InputError(
                f"{other['owner']} is changing this host: {other['what']},"
                f" since {age(other)}; it is left alone.",
                where=str(work_dir / LOCK),
                todo="wait for it; if that command is no more: invoke unlock",
            )
        write_atomically(work_dir / LOCK, mine)
    finally:
        beside.unlink(missing_ok=True)


def release(work_dir: Path, owner: Optional[str] = None) -> Optional[Lock]:
    """Give the lock up if owner holds it, or whoever does; returns what was given up."""
    other = holder(work_dir)
    if other is None or (owner is not None and other["owner"] != owner):
        return None
    (work_dir / LOCK).unlink(missing_ok=True)
    return other


def age(lock: Lock) -> str:
    """How long a lock has been held, for a person."""
    seconds = max(0, int(time.time() - lock["since"]))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def audit(work_dir: Path, owner: str, what: str, result: str) -> None:
    """Append a line on who did what to this host, when, and how it ended."""
    line = json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "owner": owner,
            "what": what,
            "result": result,
        }
    )
    with (work_dir / AUDIT).open("a") as file:
        file.write(line + "\n")


def unlock(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job: break the lock, whoever holds it.

    parameters: {"work_dir", "owner": who asks, "dry_run": only say whose it is}.
    """
    work_dir = Path(parameters["work_dir"])
    if parameters.get("dry_run"):
        return {"changed": False, "lock": holder(work_dir)}
    broken = release(work_dir)
    if broken is not None:
        audit(work_dir, parameters["owner"], f"broke the lock of {broken['owner']}", "ok")
    return {"changed": broken is not None, "lock": broken}
