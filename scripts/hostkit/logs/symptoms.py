"""What this host shows of its servers' illnesses: states, loads, ends of logs, figures of the host.

It changes nothing.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Optional

from hostkit.base import lock, run
from hostkit.base.errors import ActionError, ToolkitError
from hostkit.base.records import Record, boot_id, read_record
from hostkit.nodes import observe
from hostkit.nodes.server_logs import since_start

_BLOCK = 1 << 20
_MIB = 1 << 20
_DMESG_S = 5


def symptoms(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: {"work_dir", "tail_bytes": of logs of servers that are not ready,
    "nodes": names to look at, null for all, "ready_tail_bytes": of the others' logs}.

    Returns {"deployed", "host", "nodes", "machine", "time"}.
    """
    work_dir = Path(parameters["work_dir"])
    host = read_host(work_dir)
    wanted = parameters.get("nodes")
    names = [n["name"] for n in host.get("nodes", []) if wanted is None or n["name"] in wanted]
    nodes = [_node(host, name, parameters) for name in names]
    return {
        "changed": False,
        "deployed": bool(host),
        "nodes": nodes,
        "machine": machine(work_dir, host),
        "time": time.time(),
    }


def read_host(work_dir: Path) -> dict[str, Any]:
    """host.json of what was deployed here; empty when nothing was."""
    path = work_dir / "bundle" / "host.json"
    try:
        host: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ActionError(
            f"what was deployed here cannot be read: {error}.",
            where=str(path),
            todo="deploy again: invoke deploy",
        ) from error
    return host


def _node(host: dict[str, Any], name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    found = observe.observe(host, name)
    try:
        record = read_record(Path(host["work_dir"]) / "state", name)
    except ActionError:  # which observe has told
        record = None
    spec = next(node for node in host["nodes"] if node["name"] == name)
    found["digest"] = record.get("digest") if record else None
    found["sent_digest"] = spec["digest"]
    found["log_dir"] = spec["log_dir"]
    supervisor = record["supervisor"] if record else {}
    if found.get("out_of_pool"):  # nginx says there why
        found["said"] = log_end(Path(spec["log_dir"]) / "error.log", parameters["tail_bytes"])
    found["rebooted"] = bool(record) and supervisor.get("boot_id") != boot_id()
    recorded = (record or {"servers": []})["servers"]
    for i, server in enumerate(found["servers"]):
        server.pop("tail", None)  # the log below has more, with line numbers
        entry: Record = recorded[i] if i < len(recorded) else {}
        server["ended_at"] = entry.get("ended_at")
        well = found["state"] == "ready" and server["state"] == "ready"
        size = parameters["ready_tail_bytes" if well else "tail_bytes"]
        server["log_end"] = log_end(Path(server["log"]), size, entry.get("token"))
    return found


def log_end(path: Path, size: int, token: Optional[str] = None) -> dict[str, Any]:
    """The last lines of a log within so many bytes, since the start of the server with this token.

    Returns {"lines", "first_line": number of the first of them, "bytes", "age_s": since it was
    written}, or {"missing": why}.
    """
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            start = max(0, about.st_size - size)
            before = 0
            for block in _blocks(file, start):
                before += block.count(b"\n")
            file.seek(start)
            data = file.read(size)
            since = since_start(data, token)
    except OSError as error:
        return {"missing": str(error.strerror)}
    # Not splitlines: progress bars have carriage returns, which editors do not count as lines.
    lines = data[since:].decode("utf-8", "replace").rstrip("\n").split("\n")
    if since:
        before += data.count(b"\n", 0, since)
    elif start and len(lines) > 1:
        lines, before = lines[1:], before + 1  # the first one is not whole
    return {
        "lines": lines,
        "first_line": before + 1,
        "bytes": about.st_size,
        "age_s": max(0.0, time.time() - about.st_mtime),
    }


def _blocks(file: Any, end: int) -> Iterator[bytes]:
    left = end
    while left > 0:
        block = file.read(min(left, _BLOCK))
        if not block:
            return
        left -= len(block)
        yield block


def machine(work_dir: Path, host: dict[str, Any]) -> dict[str, Any]:
    """Figures of the host: boot, memory, disks, who was killed for memory, who holds the lock."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    found: dict[str, Any] = {
        "boot_id": boot_id(),
        "up_s": uptime,
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "memory": _memory(),
        "disks": _disks(work_dir, host),
        "killed": _killed_for_memory(),
        "lock": _lock(work_dir),
    }
    return found


def _memory() -> dict[str, int]:
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            values[name] = int(rest.split()[0]) // 1024
    return {"total_mib": values["MemTotal"], "free_mib": values.get("MemAvailable", 0)}


def _disks(work_dir: Path, host: dict[str, Any]) -> list[dict[str, Any]]:
    """Space of every disk that servers write to, each disk once, with what is written there."""
    paths = {"work directory": str(work_dir), "temporary files": host.get("temp_dir") or "/tmp"}
    paths.update({"shared memory": "/dev/shm", "what programs put there": "/tmp"})
    for node in host.get("nodes", []):
        paths[f"logs of {node['name']}"] = node["log_dir"]
        paths[f"run folder of {node['name']}"] = node["temp_dir"]
    disks: dict[int, dict[str, Any]] = {}
    for what, path in paths.items():
        there = Path(path)
        while not there.exists() and there != there.parent:
            there = there.parent
        with suppress(OSError):
            device = there.stat().st_dev
            if device in disks:
                disks[device]["what"].append(what)
                continue
            space = os.statvfs(there)
            disks[device] = {
                "path": str(there),
                "what": [what],
                "total_mib": space.f_frsize * space.f_blocks // _MIB,
                "free_mib": space.f_frsize * space.f_bavail // _MIB,
                "read_only": bool(space.f_flag & os.ST_RDONLY),
                "no_inodes": space.f_files > 0 and space.f_favail == 0,
            }
    return list(disks.values())


def _killed_for_memory() -> Optional[list[str]]:
    """The kernel's lines about processes that it killed for memory; None when it does not tell."""
    try:
        said = run.run(["dmesg"], check=False, timeout=_DMESG_S)
    except ToolkitError:
        return None
    if said.code != 0:
        return None
    wanted = ("Out of memory: Killed", "Memory cgroup out of memory: Killed", "oom-kill:")
    return [line for line in said.out.splitlines() if any(text in line for text in wanted)][-20:]


def _lock(work_dir: Path) -> Optional[dict[str, Any]]:
    """Who is changing this host, if anybody."""
    held = lock.holder(work_dir)
    return {**held, "age_s": max(0.0, time.time() - held["since"])} if held else None
