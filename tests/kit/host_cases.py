"""A host of stand-in servers for the tests of what runs on hosts."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from port_rooms import free_port

from hostkit.base.health import wait_until
from hostkit.base.records import read_record, survivors
from omnikit.fleet import bundle

ROLES = {"prefill", "decode", "colocated", "proxy"}

STAND_IN = Path(__file__).with_name("stand_in_server.py")


def a_node(folder: Path, name: str, *servers: str, role: str = "prefill") -> dict[str, Any]:
    """A node; each of servers: the stand-in's options, separated by spaces."""
    made = []
    for rank, options in enumerate(servers):
        port = free_port()
        made.append(
            {
                "name": f"{name}.{rank}",
                "argv": [sys.executable, str(STAND_IN), str(port), *options.split()],
                "log": str(folder / "logs" / name / f"server_{rank}.log"),
                "address": "127.0.0.1",
                "port": port,
                "url": f"http://127.0.0.1:{port}",
                "health": "/health",
                "model": "tiny",
            }
        )
    return {
        "name": name,
        "role": role,
        "digest": f"digest of {name}",
        "log_dir": str(folder / "logs" / name),
        "temp_dir": str(folder / "temp" / name),
        "memory_mib": 1,
        "ports": [[server["address"], server["port"]] for server in made],
        "requires": [],
        "servers": made,
    }


def a_host(folder: Path, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A host file's data, with the code that runs on hosts beside it."""
    scripts = folder / "scripts"
    for name, data in bundle.host_code().items():
        path = scripts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    host = {
        "host": "h",
        "environment": "test",
        "work_dir": str(folder),
        "temp_dir": str(folder / "temp"),
        "deadline_s": 20,
        "poll_interval_s": 0.05,
        "request_timeout_s": 2,
        "grace_s": 1,
        "log_tail_lines": 5,
        "logs": {"bytes": 0, "files": 1},
        "metrics": {"running": "vllm:num_requests_running"},
        "nodes": list(nodes),
        **more,
    }
    write(host)
    return host


def write(host: dict[str, Any]) -> None:
    """Put the host file where the launcher reads it."""
    import json

    path = Path(host["work_dir"]) / "bundle" / "host.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(host))


def record_of(host: dict[str, Any], name: str) -> dict[str, Any]:
    record = read_record(Path(host["work_dir"]) / "state", name)
    assert record is not None
    return record


def reaches(host: dict[str, Any], name: str, phase: str, seconds: float = 15) -> bool:
    """Wait until a node's record says a phase."""
    return wait_until(lambda: record_of(host, name)["phase"] == phase, seconds, 0.02)


def processes(record: dict[str, Any]) -> list[int]:
    """Every live process of a record's servers."""
    return [pid for server in record["servers"] for pid in survivors(server["process"])]


def clean(host: dict[str, Any]) -> None:
    from hostkit.nodes import start_stop

    start_stop.stop(host)
    shutil.rmtree(host["temp_dir"], ignore_errors=True)


@contextmanager
def running(host: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A host whose nodes are ready."""
    from hostkit.nodes import observe, start_stop

    try:
        start_stop.up(host, ROLES)
        verdict, nodes = observe.wait(host, ROLES, 120)
        assert verdict == "ready", nodes
        yield host
    finally:
        clean(host)


@functools.cache  # asked for by each of many tests
def pythons() -> tuple[str, ...]:
    """The supported Pythons that this machine has; a version manager's empty shims do not count."""
    found = []
    for version in ("3.9", "3.10", "3.11", "3.12", "3.13"):
        places = [*map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))]
        places.append(shutil.which(f"python{version}") or "")
        for place in filter(None, places):
            if subprocess.run([place, "-c", "pass"], capture_output=True).returncode == 0:
                found.append(place)
                break
    return tuple(found)
