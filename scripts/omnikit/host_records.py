"""Records of what was started on this host: who it is, so that only our own is ever ended.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

from omnikit import host_pids
from omnikit.errors import ActionError
from omnikit.health import wait_until

Record = dict[str, Any]


def boot_id() -> str:
    """Changes with every boot: a pid recorded before a reboot means nothing after it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity(pid: int) -> Record:
    """What tells this process from any other that ever has its pid."""
    return {
        "pid": pid,
        "pid_ns": host_pids.namespace(),
        "start_ticks": host_pids.start_ticks(pid),
        "boot_id": boot_id(),
    }


def alive(who: Optional[Record]) -> bool:
    """Whether exactly the recorded process still runs."""
    return bool(who and who.get("boot_id") == boot_id() and host_pids.pid_here(who) is not None)


def survivors(who: Optional[Record]) -> list[int]:
    """Live processes of the session that a recorded process led, itself included.

    While a session has members, the kernel gives its leader's pid to nobody else. So they are ours
    when the leader is gone or still the recorded one; any other process of that pid is a stranger.
    """
    if not who or who.get("boot_id") != boot_id():
        return []
    return host_pids.session_here(who)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """A file appears whole: written beside its place, then renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Names of files survive a power failure only when their folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(state_dir: Path, record: Record) -> None:
    """Store a node's record."""
    state_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(state_dir / f"{record['node']}.json", json.dumps(record, indent=1) + "\n")


def read_record(state_dir: Path, node: str) -> Optional[Record]:
    """A node's record, or None. A record that cannot be read is an error, not an absence."""
    path = state_dir / f"{node}.json"
    try:
        record: Record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ActionError(
            f"the record of {node} cannot be read: {error}.",
            where=str(path),
            todo="see what runs (ps -ef), end it, then remove the file",
        ) from error
    return record


def recorded_nodes(state_dir: Path) -> list[str]:
    """Names of all nodes that have a record."""
    return sorted(path.stem for path in state_dir.glob("*.json"))


def remove_record(state_dir: Path, node: str) -> None:
    """Forget a node."""
    (state_dir / f"{node}.json").unlink(missing_ok=True)


@contextmanager
def locked(
    path: Path,
    what: str,
    wait_s: float = 0.0,
    todo: str = "wait for it, or end it with: make stop",
) -> Iterator[None]:
    """Hold a lock file, which says who holds it; a dead holder holds nothing.

    Raises ActionError that names the holder when it is taken for longer than wait_s seconds; todo:
    what to do then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not wait_until(taken, wait_s, 0.1):
            holder = lock_holder(path)
            raise ActionError(
                f"{holder.get('what', 'another command')} is under way:"
                f" pid {holder.get('pid', '?')} of {holder.get('user', '?')}"
                f" since {holder.get('since', '?')}.",
                where=str(path),
                todo=todo,
            )
        me = {**identity(os.getpid()), "what": what, "user": user_name()}
        me["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
        file.seek(0)
        file.truncate()
        file.write(json.dumps(me))
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def lock_holder(path: Path) -> Record:
    """What the holder of a lock wrote about itself; empty when nobody holds it."""
    try:
        holder: Record = json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return {}
    return holder


def user_name() -> str:
    """Who runs this, also where the user has no passwd entry."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
