"""The jobs of a rolling restart on a host: servers out of the proxy, and idle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from hostkit.agent import unpack
from hostkit.base import health, lock, records
from hostkit.base.errors import InputError
from hostkit.nodes import observe, proxy_run

_LOADS = ("running", "waiting", "kv_usage")
# A request may be on its way from the proxy when a server shows no load: two looks must agree.
_LOOKS = 2


def _host(parameters: dict[str, Any]) -> dict[str, Any]:
    path = Path(parameters["work_dir"]) / "bundle" / "host.json"
    try:
        host: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"nothing is deployed here: {error}.", where=str(path), todo="deploy: invoke deploy"
        ) from error
    return host


def leave_out(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "proxy-out": the proxy sends nothing new to these servers; none: to all again.

    parameters: work_dir, node (the proxy's), out (HOST:PORT each), run (which
    holds the lock), versions (of those that do not run what is planned yet; by HOST:PORT),
    leaving (some of out may not be planned any more).
    """
    return _proxy(parameters, "proxy-out", proxy_run.reload)


def replace(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "proxy-replace": another process of the proxy's program takes its port over with these
    files, and the one before ends after its requests. parameters: as of proxy-out. What was sent
    for this run is laid out first, as before a start: the program is one of it.
    """
    work_dir = Path(parameters["work_dir"])
    wait_s = _host(parameters)["grace_s"]
    with records.locked(work_dir / lock.FLOCK, "proxy-replace", wait_s=wait_s):
        lock.check(work_dir, parameters["run"])
        unpack.unpack(work_dir / lock.INCOMING, work_dir)
    return _proxy(parameters, "proxy-replace", proxy_run.replace)


def _proxy(
    parameters: dict[str, Any],
    what: str,
    act: Callable[[dict[str, Any], dict[str, Any], records.Record, dict[str, str]], bool],
) -> dict[str, Any]:
    host = _host(parameters)
    name = parameters["node"]
    node = next((n for n in host["nodes"] if n["name"] == name), None)
    record = records.read_record(Path(host["work_dir"]) / "state", name)
    if node is None or record is None or "files" not in node:
        raise InputError(
            f"the proxy {name} does not run here, or is of a kind that cannot reload.",
            todo="deploy with proxy.kind nginx-lua or omni-nginx: invoke deploy",
        )
    out = parameters["out"]
    if parameters.get("leaving"):
        out = [server for server in out if server in proxy_run.planned(node)]
    wanted = proxy_run.files(node, out, parameters.get("versions", {}))
    work_dir = Path(host["work_dir"])
    with records.locked(work_dir / lock.FLOCK, what, wait_s=host["grace_s"]):
        lock.check(work_dir, parameters["run"])
        return {"changed": act(host, node, record, wanted)}


def drain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job "drain": wait until some loads of some nodes' servers are 0, and tell all loads.

    parameters: work_dir, nodes (names), keys (of host.json's metrics), seconds. A load that a
    server should tell but does not is None, and is not 0.
    """
    host = _host(parameters)
    seen: dict[str, dict[str, Any]] = {}
    idle = 0

    def settled() -> bool:
        nonlocal seen, idle
        seen = {}
        for name in parameters["nodes"]:
            seen.update(_loads(host, name))
        keys = [key for key in parameters["keys"] if host["metrics"].get(key)]
        busy = any(load[key] != 0 for load in seen.values() for key in keys)
        idle = 0 if busy else idle + 1
        return idle >= _LOOKS

    drained = health.wait_until(settled, float(parameters["seconds"]), host["poll_interval_s"])
    return {"changed": False, "drained": drained, "loads": seen}


def _loads(host: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """What each server of a node that can have work says of it; one that has ended has none."""
    specs = [s for node in host["nodes"] if node["name"] == name for s in node["servers"]]
    with_load = {spec["name"] for spec in specs if spec.get("model")}
    keys = [key for key in _LOADS if host["metrics"].get(key)]
    return {
        server["name"]: {key: server.get(key) for key in keys}
        for server in observe.observe(host, name)["servers"]
        # Not yet healthy: it never had a request.
        if server["name"] in with_load and server["pid"] and server["healthy_at"]
    }
