"""Observe the nodes of this host: their states, their servers' load, the ends of their logs.

host is the data of host.json.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any, Optional

from hostkit.access import service
from hostkit.base.errors import ActionError
from hostkit.base.health import metric, wait_until
from hostkit.base.records import Record, alive, boot_id, pid_here, read_record
from hostkit.nodes import proxy_run
from hostkit.nodes.server_logs import since_start

Host = dict[str, Any]
_OUT_OF_POOL = re.compile(r'^omnikit_proxy_server_in_pool\{.*server="([^"]+)"\} 0$', re.MULTILINE)


def _state_dir(host: Host) -> Path:
    return Path(host["work_dir"]) / "state"


def wait(
    host: Host, kinds: set[str], seconds: float, only: Optional[set[str]] = None
) -> tuple[str, list[dict[str, Any]]]:
    """Wait up to some seconds for the nodes of some roles: ready, starting or failed."""
    names = [
        node["name"]
        for node in host["nodes"]
        if node["role"] in kinds and (only is None or node["name"] in only)
    ]

    def settled() -> bool:
        states = _states(host, names)
        return "failed" in states or set(states) <= {"ready"}

    wait_until(settled, seconds, 0.1)
    states = _states(host, names)
    verdict = "failed" if "failed" in states else "starting" if set(states) - {"ready"} else "ready"
    return verdict, [observe(host, name, metrics=False) for name in names]


def _states(host: Host, names: list[str]) -> list[str]:
    return [node_state(read_record(_state_dir(host), name)) for name in names]


def node_state(record: Optional[Record]) -> str:
    """starting, ready, failed or stopped, from the record and from who still lives."""
    if record is None:
        return "stopped"
    if record["phase"] in ("failed", "stopped"):
        return str(record["phase"])
    if not alive(record["supervisor"]):
        same_boot = record["supervisor"]["boot_id"] == boot_id()
        return "failed" if same_boot else "stopped"
    return str(record["phase"])


def observe(host: Host, name: str, *, metrics: bool = True) -> dict[str, Any]:
    """All that is known of a node now: its state, and each server's state, uptime and load."""
    spec = next((n for n in host["nodes"] if n["name"] == name), None)
    try:
        record = read_record(_state_dir(host), name)
    except ActionError as error:  # damaged: the others are seen all the same
        known = {"node": name, "role": (spec or {}).get("role"), "state": "failed"}
        return {**known, "reason": f"{error.what} ({error.where})", "servers": []}
    state = node_state(record)
    servers = []
    recorded = (record or {"servers": []})["servers"]
    for i, server in enumerate((spec or {"servers": []})["servers"]):
        entry = recorded[i] if i < len(recorded) else None
        servers.append(_observe_server(host, state, server, entry, metrics))
    found = {
        "node": name,
        "role": (spec or record or {}).get("role"),
        "state": state,
        "reason": _reason(record, state),
        "restarts": (record or {}).get("restarts"),
        "started_at": (record or {}).get("started_at"),
        "ready_at": (record or {}).get("ready_at"),
        "servers": servers,
        "left_out": proxy_run.left_out(spec) if spec and state == "ready" else [],
        "versions": proxy_run.running_versions(spec) if spec and state == "ready" else {},
    }
    if metrics and found["role"] == "proxy":
        found["out_of_pool"] = [one for server in servers for one in server.pop("out_of_pool", [])]
    return found


def _reason(record: Optional[Record], state: str) -> Optional[str]:
    """What the record says of its node's state, or what it does not know of its own supervisor."""
    if record is None:
        return None
    who = record["supervisor"]
    if state == "failed" and record["phase"] in ("starting", "ready"):
        return f"its supervisor (pid {who['pid']}) was killed, and its servers ended with it"
    if state in ("starting", "ready") and _held(who):
        return f"its supervisor, pid {pid_here(who)}, is stopped by a signal (state T)"
    reason: Optional[str] = record.get("reason")
    return reason


def _held(who: Record) -> bool:
    """Whether a recorded process was stopped, by SIGSTOP or a debugger."""
    try:
        text = Path(f"/proc/{pid_here(who)}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] in "tT"


def _observe_server(
    host: Host, node_state_: str, spec: dict[str, Any], entry: Optional[Record], metrics: bool
) -> dict[str, Any]:
    state = node_state_
    if entry is not None and node_state_ in ("ready", "starting", "failed"):
        state = str(entry["state"])
        if state in ("ready", "starting") and not alive(entry["process"]):
            state = "failed"
    running = state in ("ready", "starting") and entry is not None
    found: dict[str, Any] = {
        "name": spec["name"],
        "state": state,
        "address": spec["address"],
        "port": spec["port"],
        "pid": pid_here(entry["process"]) if entry and running else None,
        "uptime_s": round(time.time() - entry["started_at"], 1) if entry and running else None,
        "healthy_at": entry.get("healthy_at") if entry else None,
        "exit": entry["exit"] if entry else None,
        "log": spec["log"],
    }
    if state == "ready" and metrics and spec["health"] is not None:
        timeout = host["request_timeout_s"]
        asked = service.of_spec(spec)
        answer = asked.request(spec["health"], timeout_s=timeout)
        if answer.status != 200:
            found["state"] = "failed"
            found["reason"] = f"{spec['health']} answers {answer.status or answer.text}"
            if entry is not None and _held(entry["process"]):
                found["reason"] += f": pid {found['pid']} is stopped by a signal (state T)"
        elif spec.get("model"):
            text = asked.request("/metrics", timeout_s=timeout).text
            for key, metric_name in host["metrics"].items():
                found[key] = metric(text, metric_name)
        else:
            text = asked.request("/metrics", timeout_s=timeout).text
            found["out_of_pool"] = _OUT_OF_POOL.findall(text)
    if state == "failed":
        token = entry.get("token") if entry else None
        found["tail"] = tail(Path(spec["log"]), host["log_tail_lines"] * 10, token)
    return found


def tail(path: Path, lines: int, token: Optional[str] = None) -> list[str]:
    """The last lines of a log, without reading more of it than needed, since a server's start."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - lines * 400))
            data = file.read()
            since = data[since_start(data, token) :]
            return since.decode("utf-8", "replace").splitlines()[-lines:]
    except OSError as error:
        return [f"(no log: {error})"]
