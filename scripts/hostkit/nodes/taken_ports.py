"""Which ports are taken on this host, and by whom."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import Optional


def is_taken(address: str, port: int) -> bool:
    """Whether nobody else could listen on address:port now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def owner(port: int) -> str:
    """The process that listens on a TCP port, for a person: "nginx (pid 7): nginx -c …"."""
    inodes = _listening_inodes(port)
    for entry in (path.name for path in Path("/proc").iterdir()):
        if entry.isdigit() and _holds(entry, inodes):
            return f"pid {entry} ({_command(entry)})"
    return "a process that this user may not see (try: ss -ltnp, as root)"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            # fields: sl local rem st … inode is the tenth; st 0A is LISTEN
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _holds(pid: str, inodes: set[str]) -> bool:
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for entry in entries:
        with suppress(OSError):  # closed in between
            link = str(entry.readlink())
            if link.startswith("socket:[") and link[8:-1] in inodes:
                return True
    return False


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "?"
    return " ".join(words).strip()[:120]


def memory_available_mib() -> Optional[int]:
    """Memory that new processes could take, in MiB, the control group's limit included."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = {line.split(":")[0]: line.split()[1] for line in lines if line}
    available = int(found["MemAvailable"]) // 1024 if "MemAvailable" in found else None
    limit = _cgroup_left_mib()
    if available is None or limit is None:
        return available
    return min(available, limit)


def _cgroup_left_mib() -> Optional[int]:
    root = Path("/sys/fs/cgroup")
    try:
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        stat = (root / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    # The page cache is given back when memory is asked for.
    cache = sum(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    return (int(limit) - used + cache) // (1024 * 1024)
