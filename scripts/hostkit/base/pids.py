"""Processes of this host, those in containers included, by the numbers that they have here.

A record made in a container holds the pids of that container's namespace. Here they are found
again by the namespace and the number in it (NSpid and NSsid of /proc/PID/status, proc(5)).
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

Record = dict[str, Any]


def namespace(pid: str = "self") -> str:
    """The pid namespace of a process, "" where it cannot be seen."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def start_ticks(pid: int) -> Optional[int]:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


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
    members = []
    for pid in _all():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            members.append(int(pid))
    return members


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
