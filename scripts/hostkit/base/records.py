"""Records of what was started on this host: who it is, so that only our own is ever ended.

A record made in a container holds the pids of that container's namespace. Here they are found
again by the namespace and the number in it (NSpid and NSsid of /proc/PID/status, proc(5)).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

from hostkit.base.errors import ActionError, ToolkitError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.writing import read_back, write_atomically

Record = dict[str, Any]


def boot_id() -> str:
    """Changes with every boot: a pid recorded before a reboot means nothing after it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identity(pid: int) -> Record:
    """What tells this process from any other that ever has its pid."""
    return {
        "pid": pid,
        "pid_ns": namespace(),
        "start_ticks": start_ticks(pid),
        "boot_id": boot_id(),
    }


def alive(who: Optional[Record]) -> bool:
    """Whether exactly the recorded process still runs."""
    return bool(who and who.get("boot_id") == boot_id() and pid_here(who) is not None)


def survivors(who: Optional[Record]) -> list[int]:
    """Live processes of the session that a recorded process led, itself included.

    While a session has members, the kernel gives its leader's pid to nobody else. So they are ours
    when the leader is gone or still the recorded one; any other process of that pid is a stranger.
    """
    if not who or who.get("boot_id") != boot_id():
        return []
    return session_here(who)


def write_record(state_dir: Path, record: Record) -> None:
    """Store a node's record."""
    state_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(state_dir / f"{record['node']}.json", json.dumps(record, indent=1) + "\n")


def read_record(state_dir: Path, node: str) -> Optional[Record]:
    """A node's record, or None. A record that cannot be read is an error, not an absence."""
    path = state_dir / f"{node}.json"
    try:
        record: Record = json.loads(path.read_text())
        if not _well_formed(record):
            raise ValueError("it is no record of a node")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ActionError(
            f"the record of {node} cannot be read: {error}.",
            where=str(path),
            todo="end what bears the mark of this node, and forget it: invoke stop",
        ) from error
    return record


def _well_formed(record: Any) -> bool:
    """Whether a record has what those who read it rely on."""
    if not isinstance(record, dict) or not isinstance(record.get("servers"), list):
        return False
    words = [record.get(key) for key in ("node", "role", "phase")]
    who = [record.get("supervisor"), *filter(None, [record.get("log_writer")])]
    if not isinstance(record.get("beside", []), list):
        return False
    for server in started(record):
        if not isinstance(server, dict) or not isinstance(server.get("helpers", []), list):
            return False
        if not isinstance(server.get("started_at"), (int, float)) or "exit" not in server:
            return False
        words += [server.get("state")]
        who += [server.get("process"), *server.get("helpers", [])]
    return all(isinstance(word, str) for word in words) and all(map(is_identity, who))


def started(record: Record) -> list[Record]:
    """All that a node's supervisor started: its servers, and those of a proxy that come or go: of
    one that takes over from another both are there for a while.
    """
    return [*record["servers"], *record.get("beside", [])]


def is_identity(who: Any) -> bool:
    """Whether this is what identity() makes."""
    return (
        isinstance(who, dict)
        and isinstance(who.get("pid"), int)
        and who["pid"] > 0
        and isinstance(who.get("start_ticks"), (int, type(None)))
        and isinstance(who.get("boot_id"), str)
    )


def recorded_nodes(state_dir: Path) -> list[str]:
    """Names of all nodes that have a record."""
    return sorted(path.stem for path in state_dir.glob("*.json"))


def remove_record(state_dir: Path, node: str) -> None:
    """Forget a node. Where that cannot be, its record tells of processes that are no more."""
    path = state_dir / f"{node}.json"
    try:
        path.unlink(missing_ok=True)
        path.with_suffix(".prom").unlink(missing_ok=True)  # its metrics
    except OSError as error:
        say(f"{path} cannot be removed: {error.strerror}")


@contextmanager
def locked(
    path: Path,
    what: str,
    wait_s: float = 0.0,
    todo: str = "wait for it, or end it with: make stop",
    kind: type[ToolkitError] = ActionError,
) -> Iterator[None]:
    """Hold a lock file, which says who holds it; a dead holder holds nothing.

    Raises an error of that kind that names the holder when it is taken for longer than wait_s
    seconds; todo: what to do then.
    """
    with _lockable(path) as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not wait_until(taken, wait_s, 0.1):
            holder = lock_holder(path)
            raise kind(
                f"{holder.get('what', 'another command')} is under way:"
                f" pid {holder.get('pid', '?')} of {holder.get('user', '?')}"
                f" since {holder.get('since', '?')}.",
                where=str(path),
                todo=todo,
            )
        me = {**identity(os.getpid()), "what": what, "user": user_name()}
        me["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: it is held, but does not say by whom
            os.truncate(file, 0)
            os.write(file, json.dumps(me).encode())
        try:
            yield
        finally:
            with suppress(OSError):
                os.truncate(file, 0)


def wait_for_lock(path: Path, wait_s: float) -> None:
    """Wait until nobody holds a lock file, without taking it. Raises ActionError after a while."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # there is none

    def free() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        if not wait_until(free, wait_s, 0.1):
            what = lock_holder(path).get("what", "another command")
            raise ActionError(
                f"{what} is under way here, and does not end.",
                where=str(path),
                todo="wait for it, or end it with: make stop",
            )
    finally:
        os.close(file)


@contextmanager
def _lockable(path: Path) -> Iterator[int]:
    """The lock's file, open; where it can be neither written nor made, what is there instead."""
    place = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        there = path if path.exists() else path.parent
        place = os.open(there, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def lock_holder(path: Path) -> Record:
    """What the holder of a lock wrote about itself; empty when nobody holds it."""
    return read_back(path)


def user_name() -> str:
    """Who runs this, also where the user has no passwd entry."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def namespace(pid: str = "self") -> str:
    """The pid namespace of a process, "" where it cannot be seen."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


class Process(NamedTuple):
    """start_ticks: when it started, in clock ticks since boot."""

    parent: int
    session: int
    start_ticks: int


def process(pid: int) -> Optional[Process]:
    """A live process; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, parent, _, session, *rest = text.rpartition(")")[2].split()
        return None if state in "ZX" else Process(int(parent), int(session), int(rest[15]))
    except (OSError, ValueError, IndexError):
        return None


def processes() -> dict[int, Process]:
    """All live processes, by their pids here."""
    found = ((int(pid), process(int(pid))) for pid in _all())
    return {pid: one for pid, one in found if one is not None}


def start_ticks(pid: int) -> Optional[int]:
    """When a process started; None when it is gone or a zombie."""
    there = process(pid)
    return there.start_ticks if there else None


def pid_here(who: Record) -> Optional[int]:
    """The pid that a recorded process has here; None when it is gone. See records.identity."""
    if _same_namespace(who):
        pid: Optional[int] = int(who["pid"])
    else:
        pid = next(iter(_inside(str(who["pid_ns"]), "NSpid", int(who["pid"]))), None)
    if pid is None or who.get("start_ticks") is None or start_ticks(pid) != who["start_ticks"]:
        return None
    return pid


def session_here(who: Record) -> list[int]:
    """Live processes of the session that a recorded process led."""
    leader = int(who["pid"])
    if _same_namespace(who):
        if start_ticks(leader) not in (None, who.get("start_ticks")):
            return []  # a stranger has that pid now
        return session_members(leader)
    there = _inside(str(who["pid_ns"]), "NSpid", leader)
    if there and start_ticks(there[0]) not in (None, who.get("start_ticks")):
        return []
    return _inside(str(who["pid_ns"]), "NSsid", leader)


def session_members(session: int) -> list[int]:
    """Pids of all live processes of a session that we made."""
    return [pid for pid, one in processes().items() if one.session == session]


def _same_namespace(who: Record) -> bool:
    return who.get("pid_ns") in (None, "", namespace())


def _all() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def _inside(pid_ns: str, field: str, number: int) -> list[int]:
    """Live processes of a namespace whose innermost NSpid or NSsid is number."""
    found = []
    for pid in _all():
        if namespace(pid) != pid_ns:
            continue
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        if int(status.get(field, "0").split()[-1]) == number and status["State"].split()[0] != "Z":
            found.append(int(pid))
    return found
