"""All that a node's servers started, in whatever session or group it is by now.

A process belongs to a server when it is in its session, bears its mark in its environment, is in
its control group, was seen below it before, or descends from one that does. Names count for
nothing. Of a container, processes are known by the numbers that they have here.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from hostkit.base import records
from hostkit.base.health import wait_until
from hostkit.base.records import alive, boot_id, identity, survivors

Record = dict[str, Any]
MARK = "OMNIKIT_SERVER"  # in the environment of a server and of what it starts
NODE = "OMNIKIT_NODE"  # the node's label, in that of its supervisor and of all that it starts
_GROUP = "omnikit-"  # what a server's control group is called, before its token
_LEAVE_S = 10  # what SIGKILL takes, at the most


def label(work_dir: str, node: str) -> str:
    """What all tokens of a node begin with: it tells what is the node's without its record."""
    return hashlib.sha256(f"{work_dir}\0{node}".encode()).hexdigest()[:16]


def token(work_dir: str, node: str) -> str:
    """A new server's mark, which no other ever has."""
    return f"{label(work_dir, node)}-{secrets.token_hex(8)}"


_Processes = Mapping[int, records.Process]


def _below(roots: Iterable[int], processes: _Processes) -> set[int]:
    """These processes, as far as they live, and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    to_do = [pid for pid in roots if pid in processes]
    while to_do:
        pid = to_do.pop()
        if pid not in found:
            found.add(pid)
            to_do += children.get(pid, [])
    return found


def _session(leader: Record, processes: _Processes) -> Iterable[int]:
    """The session that a recorded process led; see records.survivors."""
    if leader.get("pid_ns") not in (None, "", records.namespace()):
        return survivors(leader)
    there = processes.get(leader["pid"])
    stranger = there is not None and there.start_ticks != leader.get("start_ticks")
    if stranger or leader.get("boot_id") != boot_id():
        return ()
    return [pid for pid, process in processes.items() if process.session == leader["pid"]]


def children() -> list[int]:
    """Live processes right below this one."""
    return [pid for pid, process in records.processes().items() if process.parent == os.getpid()]


def members(servers: Sequence[Record], also: Iterable[int] = ()) -> dict[int, int]:
    """Live processes of some servers of a record, with their start ticks.

    also: these are theirs too. This process and those that it descends from never are.
    """
    processes = records.processes()
    found = set(also)
    for server in servers:
        found.update(_session(server["process"], processes) if server.get("process") else ())
        seen = [one for one in server.get("helpers", []) if alive(one)]
        found.update(pid for one in seen if (pid := records.pid_here(one)) is not None)
    found.update(_marked([s["token"] for s in servers if s.get("token")], processes))
    theirs = _below(found, processes)
    me: Optional[int] = os.getpid()
    while me:
        theirs.discard(me)
        me = processes[me].parent if me in processes else None
    return {pid: processes[pid].start_ticks for pid in theirs}


def _marked(tokens: Sequence[str], processes: Iterable[int]) -> set[int]:
    """Processes whose environment or control group names one of these tokens or labels."""
    found: set[int] = set()
    if not tokens:
        return found
    words = f"(?:{'|'.join(map(re.escape, tokens))})(?:-[0-9a-f]+)?"
    marks = {
        "environ": re.compile(rf"(?:^|\0)(?:{MARK}|{NODE})={words}(?:\0|$)".encode()),
        "cgroup": re.compile(rf"/{_GROUP}{words}(?:/|$)".encode(), re.MULTILINE),
    }
    for pid in processes:
        for name, mark in marks.items():
            with suppress(OSError):  # of another user, or gone
                if mark.search(Path(f"/proc/{pid}/{name}").read_bytes()):
                    found.add(pid)
    return found


def end(servers: Sequence[Record], number: int, also: Iterable[int] = ()) -> bool:
    """Send a signal to all that is left of some servers; whether anything was."""
    left = members(servers, also)
    for pid, start_ticks in left.items():
        with suppress(ProcessLookupError, PermissionError):
            if records.start_ticks(pid) == start_ticks:  # else its pid is another's by now
                os.kill(pid, number)
    return bool(left)


def end_all(
    servers: Sequence[Record], number: int, also: Callable[[], Iterable[int]] = tuple
) -> None:
    """The same until nothing is left: what starts others while it ends is ended with them."""
    wait_until(lambda: not end(servers, number, also()), _LEAVE_S, 0.05)
    for server in servers:
        if server.get("group"):
            with suppress(OSError):  # it goes only when it is empty
                Path(server["group"]).rmdir()


def helpers(servers: Sequence[Record]) -> list[list[Record]]:
    """What is below each of some servers but not in its session, so that it is known later on."""
    processes = records.processes()
    found = []
    for server in servers:
        own = set(_session(server["process"], processes))
        found.append([identity(pid) for pid in sorted(_below(own, processes) - own)])
    return found


def make_group(token: str) -> Optional[Path]:
    """A control group for a server below this process's own; None where there can be none."""
    with suppress(OSError, ValueError, StopIteration):
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        root, place = next(line for line in mounts if " - cgroup2 " in line).split()[3:5]
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        group = Path(place) / os.path.relpath(own, root) / f"{_GROUP}{token}"
        group.mkdir()
        return group
    return None
