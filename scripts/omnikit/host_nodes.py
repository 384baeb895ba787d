"""Start and stop the nodes of this host.

host is the data of host.json (written by omnikit.host_file on the control host).
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from omnikit import host_container, host_pids, host_proxy, run
from omnikit.errors import ActionError
from omnikit.health import wait_until
from omnikit.host_look import Host, container_differs, container_of, look, runs, state_dir
from omnikit.host_records import (
    Record,
    alive,
    read_record,
    recorded_nodes,
    remove_record,
    survivors,
)


def containers_up(host: Host, only: Optional[set[str]] = None) -> dict[str, str]:
    """Bring the nodes' containers to what is planned: what was done, by container.

    A node whose container must be made anew is stopped first.
    """
    done = {}
    for node in host["nodes"]:
        spec = container_of(host, node)
        if spec is None or (only is not None and node["name"] not in only):
            continue
        if container_differs(spec):
            before = (read_record(state_dir(host), node["name"]) or {}).get("container")
            stop_node(host, node["name"])  # which forgets the container that it was in
            if before and before["name"] != spec["name"]:
                _remove_container(before)
        result = host_container.ensure({"spec": {**spec, "grace_s": 0}})
        done[spec["name"]] = result["action"]
    return done


def up(host: Host, kinds: set[str], only: Optional[set[str]] = None) -> dict[str, str]:
    """Bring the nodes whose role is in kinds to what is planned; returns what was done to each.

    unchanged, started, restarted (something differed), reloaded or removed (no longer planned).
    """
    done = {}
    actions = look(host, only)
    roles = {node["name"]: node["role"] for node in host["nodes"]}
    for name, action in actions.items():
        if action == "remove":
            container = (read_record(state_dir(host), name) or {}).get("container")
            stop_node(host, name)
            _remove_container(container)
            done[name] = "removed"
    for node in host["nodes"]:
        name = node["name"]
        if roles[name] not in kinds or name not in actions:
            continue
        if actions[name] == "unchanged":
            done[name] = "unchanged"
            continue
        record = read_record(state_dir(host), name) or {}
        if actions[name] == "reload":
            host_proxy.reload(host, node, record, host_proxy.files(node))
            done[name] = "reloaded"
            continue
        before = record.get("container")
        if actions[name] == "restart":
            stop_node(host, name)
        if before and before["name"] != node.get("container"):
            _remove_container(before)
        remove_record(state_dir(host), name)
        _start(host, node)
        done[name] = "restarted" if actions[name] == "restart" else "started"
    return done


def _start(host: Host, node: dict[str, Any]) -> None:
    scripts = Path(host["work_dir"]) / "scripts"
    launcher_log = Path(node["log_dir"]) / "launcher.log"
    launcher_log.parent.mkdir(parents=True, exist_ok=True)
    host_file = Path(host["work_dir"]) / "bundle" / "host.json"
    argv = [str(scripts / "launch_servers.py"), "--host-file", str(host_file)]
    argv += ["--node", node["name"]]
    spec = container_of(host, node)
    if spec is None:
        recorded = _launch(host, node, [sys.executable, *argv], launcher_log)
    else:
        recorded = _launch_inside(host, node, spec, argv, launcher_log)
    if not recorded:
        said = launcher_log.read_text(errors="replace").strip()
        by_hand = [sys.executable, *argv]
        if spec is not None:
            by_hand = host_container.exec_words(spec, [host["container_python"], *argv])
        raise ActionError(
            f"{node['name']} could not be started: {said or 'its launcher wrote nothing'}",
            where=str(launcher_log),
            todo=None if said else f"see what it says by hand: {run.show(by_hand)}",
        )


def _launch(host: Host, node: dict[str, Any], argv: list[str], log: Path) -> bool:
    """Start a node's supervisor on this host; True when it has written its record."""
    with log.open("wb") as output:
        child = run.start(argv, output=output)

    def recorded() -> bool:
        record = read_record(state_dir(host), node["name"])
        return bool(record and record["supervisor"]["pid"] == child.pid)

    wait_until(lambda: recorded() or child.poll() is not None, host["grace_s"], 0.02)
    if not recorded():
        run.end_group(child.pid, signal.SIGKILL)
    return recorded()


def _launch_inside(
    host: Host, node: dict[str, Any], spec: host_container.Spec, argv: list[str], log: Path
) -> bool:
    """Start a node's supervisor in its container; True when it has written its record."""
    host_container.ensure({"spec": {**spec, "grace_s": 0}})  # nothing of the node runs any more
    log.write_bytes(b"")
    run.run(host_container.exec_words(spec, [host["container_python"], *argv], str(log)))

    def recorded() -> bool:
        return read_record(state_dir(host), node["name"]) is not None

    # It says something only when it cannot start.
    wait_until(lambda: recorded() or log.stat().st_size > 0, host["grace_s"], 0.02)
    return recorded()


def _remove_container(container: Optional[host_container.Spec]) -> None:
    if container:
        host_container.remove({"spec": {**container, "grace_s": 0}})


def stop_node(host: Host, name: str) -> bool:
    """End what a record names, nothing else, and forget it; False when nothing ran any more."""
    record = read_record(state_dir(host), name)
    if record is None:
        return False
    ran = runs(record)
    if _ask_to_end(record):
        # The supervisor itself takes up to two grace periods.
        supervisor = record["supervisor"]
        wait_until(lambda: not alive(supervisor), 2 * host["grace_s"] + 5, 0.05)
    final: Record = read_record(state_dir(host), name) or record
    for number in (signal.SIGTERM, signal.SIGKILL):
        for server in final["servers"]:
            for pid in survivors(server["process"]):
                _signal(pid, number)
        if wait_until(lambda: not runs(final), host["grace_s"], 0.05):
            break
    if runs(final):
        raise ActionError(
            f"{name} could not be ended: a process of it does not react to SIGKILL.",
            todo="see what it waits for: ps -o pid,stat,wchan:30,args -p "
            + ",".join(str(s["process"]["pid"]) for s in final["servers"]),
        )
    if "temp_dir" in final:
        shutil.rmtree(final["temp_dir"], ignore_errors=True)
    remove_record(state_dir(host), name)
    return ran


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended in between, which is what was wanted
        os.kill(pid, number)


def _role(host: Host, name: str) -> Optional[str]:
    return (read_record(state_dir(host), name) or {}).get("role")


def _ask_to_end(record: Optional[Record]) -> bool:
    """SIGTERM to a node's supervisor; False when there is none."""
    pid = host_pids.pid_here(record["supervisor"]) if record else None
    if record is None or pid is None or not alive(record["supervisor"]):
        return False
    _signal(pid, signal.SIGTERM)
    return True


def stop(host: Host, only: Optional[set[str]] = None, remove: bool = False) -> dict[str, str]:
    """End all recorded nodes (or only some): stopped, or forgotten when only a record was left.

    Their containers are stopped, and with remove taken away.
    """
    done = {}
    names = [n for n in recorded_nodes(state_dir(host)) if only is None or n in only]
    containers: dict[str, Any] = {
        n: (read_record(state_dir(host), n) or {}).get("container") for n in names
    }
    # The proxy goes first: clients get a refused connection rather than half an answer.
    names.sort(key=lambda n: _role(host, n) != "proxy")
    proxies = [n for n in names if _role(host, n) == "proxy"]
    for name in proxies:
        done[name] = "stopped" if stop_node(host, name) else "forgotten"
    # All others end side by side.
    asked = {n for n in names if _ask_to_end(read_record(state_dir(host), n))}
    for name in names[len(proxies) :]:
        ran = stop_node(host, name)
        done[name] = "stopped" if ran or name in asked else "forgotten"
    # Their servers have ended: what keeps the containers running needs no time.
    ended = [{**containers[n], "grace_s": 0} for n in names if containers[n]]
    if remove:
        ended += [{**spec, "grace_s": 0} for spec in host.get("containers", {}).values()]
    for spec in ended:
        (host_container.remove if remove else host_container.stop)({"spec": spec})
    temp_dir = Path(host["temp_dir"])
    if temp_dir.is_dir() and not any(temp_dir.iterdir()):
        temp_dir.rmdir()
    return done
