"""Start and stop the nodes of this host, and take away what deployments left, never anything else.

host is the data of host.json (written by omnikit.prepare.deployment on the control host).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from hostkit.agent.unpack import read_host
from hostkit.base import folders, run
from hostkit.base import lock as base_lock
from hostkit.base import records as base_records
from hostkit.base.errors import ActionError, InputError
from hostkit.base.health import wait_until
from hostkit.base.log import say
from hostkit.base.records import Record, alive, locked, read_record, recorded_nodes, remove_record
from hostkit.base.writing import write_atomically
from hostkit.containers import containers as containers_containers
from hostkit.nodes import (
    boot,
    caches,
    family,
    log_writer,
    needed,
    proxy_run,
    server_logs,
    setup_look,
)
from hostkit.nodes.needed import Host, container_differs, container_of, look, runs, state_dir

_RECORD_BYTES = 1 << 16  # more than a record has
_LAUNCH_S = 60  # until a supervisor has written its record, also on a busy host


def containers_up(host: Host, only: Optional[set[str]] = None) -> dict[str, str]:
    """Bring the nodes' containers to what is planned: what was done, by container.

    A node whose container must be made anew is stopped first.
    """
    done = {}
    made = []
    apart = folders.apart(host["temp_dir"], host["work_dir"])
    for node in host["nodes"]:
        spec = container_of(host, node)
        if spec is None or (only is not None and node["name"] not in only):
            continue
        if container_differs(spec):
            before = (read_record(state_dir(host), node["name"]) or {}).get("container")
            stop_node(host, node["name"])  # which forgets the container that it was in
            if before and before["name"] != spec["name"]:
                _remove_container(before)
            # What is mounted, and filled later.
            fault = folders.make(str(Path(host["temp_dir"]).parent), None, apart)
            if fault:
                raise InputError(f"no place for run folders: {fault}.")
            for path in filter(None, (node["log_dir"], node.get("source_dir"))):
                Path(path).mkdir(parents=True, exist_ok=True)
        result = containers_containers.ensure({"spec": {**spec, "grace_s": 0}})
        done[spec["name"]] = result["action"]
        if result["changed"]:
            made.append(node)
    specs = [host["containers"][node["container"]] for node in made]
    for wrong in setup_look.problems(specs):  # what could not be asked before
        raise ActionError(wrong.what, todo=wrong.todo)
    for node, spec in zip(made, specs):
        lacks = needed.problem(node, spec)
        if lacks:
            raise ActionError(lacks.what, where=lacks.where, todo=lacks.todo)
    return done


def up(host: Host, kinds: set[str], only: Optional[set[str]] = None) -> dict[str, str]:
    """Bring the nodes whose role is in kinds to what is planned; returns what was done to each.

    unchanged, started, restarted (something differed), reloaded or removed (no longer planned).
    """
    done = {}
    boot.install(host)
    actions = look(host, only)
    roles = {node["name"]: node["role"] for node in host["nodes"]}
    if set(actions.values()) - {"unchanged", "remove"}:
        # What could not be recorded is not begun: nothing is stopped for it either.
        probe = state_dir(host) / ".probe"
        probe.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(probe, " " * _RECORD_BYTES)
        probe.unlink()
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
            proxy_run.mend_folder(node)
            done[name] = "unchanged"
            continue
        record = read_record(state_dir(host), name) or {}
        if actions[name] == "reload":
            proxy_run.reload(host, node, record, proxy_run.files(node))
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


def lost_folders(host: Host) -> list[str]:
    """Run folders of nodes that run, but which somebody has removed."""
    found = []
    for node in host["nodes"]:
        record = read_record(state_dir(host), node["name"])
        if record and alive(record["supervisor"]) and not Path(node["temp_dir"]).is_dir():
            found.append(node["temp_dir"])
    return found


def _start(host: Host, node: dict[str, Any]) -> None:
    scripts = Path(host["work_dir"]) / "scripts"
    launcher_log = Path(node["log_dir"]) / "launcher.log"
    launcher_log.parent.mkdir(parents=True, exist_ok=True)
    proxy_run.place_certificate(node)
    caches.choose(host, node)
    with suppress(FileNotFoundError):
        if 0 < host["logs"]["bytes"] < launcher_log.stat().st_size:
            log_writer.put_aside(launcher_log, host["logs"]["files"])
    with launcher_log.open("ab") as log:
        before = log.tell()
    host_file = Path(host["work_dir"]) / "bundle" / "host.json"
    argv = [str(scripts / "launch_servers.py"), "--host-file", str(host_file)]
    argv += ["--node", node["name"]]
    spec = container_of(host, node)
    if spec is None:
        recorded = _launch(host, node, [sys.executable, *argv], launcher_log)
    else:
        recorded = _launch_inside(host, node, spec, argv, launcher_log)
    if not recorded:
        said = launcher_log.read_bytes()[before:].decode(errors="replace").strip()
        by_hand = [sys.executable, *argv]
        if spec is not None:
            by_hand = containers_containers.exec_words(
                {**spec, "profile": None}, [host["container_python"], *argv]
            )
        raise ActionError(
            f"{node['name']} could not be started: {said or 'its launcher wrote nothing'}",
            where=str(launcher_log),
            todo=None if said else f"see what it says by hand: {run.show(by_hand)}",
        )


def _launch(host: Host, node: dict[str, Any], argv: list[str], log: Path) -> bool:
    """Start a node's supervisor on this host; True when it has written its record."""
    mark = {family.NODE: family.label(host["work_dir"], node["name"])}
    with log.open("ab") as output:
        child = run.start(argv, output=output, env=mark)

    def recorded() -> bool:
        record = read_record(state_dir(host), node["name"])
        return bool(record and record["supervisor"]["pid"] == child.pid)

    wait_until(lambda: recorded() or child.poll() is not None, _LAUNCH_S, 0.02)
    if not recorded():
        run.end_group(child.pid, signal.SIGKILL)
    return recorded()


def _launch_inside(
    host: Host, node: dict[str, Any], spec: containers_containers.Spec, argv: list[str], log: Path
) -> bool:
    """Start a node's supervisor in its container; True when it has written its record."""
    containers_containers.ensure(
        {"spec": {**spec, "grace_s": 0}}
    )  # nothing of the node runs any more
    before = log.stat().st_size
    mark = f"{family.NODE}={family.label(host['work_dir'], node['name'])}"
    words = [host["container_python"], *argv]
    run.run(containers_containers.launch_words(spec, words, str(log), mark))

    def recorded() -> bool:
        return read_record(state_dir(host), node["name"]) is not None

    # It says something only when it cannot start.
    wait_until(lambda: recorded() or log.stat().st_size > before, _LAUNCH_S, 0.02)
    return recorded()


def _remove_container(container: Optional[containers_containers.Spec]) -> None:
    if container:
        containers_containers.remove({"spec": {**container, "grace_s": 0}})


def stop_node(host: Host, name: str) -> bool:
    """End what a record names, nothing else, and forget it; False when nothing ran any more."""
    try:
        record = read_record(state_dir(host), name)
    except ActionError as error:
        say(f"{error.what} What bears its mark is ended.")
        servers = [{"token": family.label(host["work_dir"], name)}]
        return _end(host, name, {"servers": servers, "supervisor": None})
    if record is None:
        return False
    ran = runs(record)
    if _ask_to_end(record):
        # The supervisor itself takes up to two grace periods.
        supervisor = record["supervisor"]
        wait_until(lambda: not alive(supervisor), 2 * host["grace_s"] + 5, 0.05)
    return _end(host, name, read_record(state_dir(host), name) or record) or ran


def _end(host: Host, name: str, record: Record) -> bool:
    """End all that a record's servers are and started; whether anything was."""
    ran, theirs = runs(record), base_records.started(record)
    for number in (signal.SIGTERM, signal.SIGKILL):
        family.end(theirs, number)
        supervisor = base_records.pid_here(record["supervisor"]) if record["supervisor"] else None
        if number == signal.SIGKILL and supervisor and alive(record["supervisor"]):
            _signal(supervisor, number)
        if wait_until(lambda: not runs(record), host["grace_s"], 0.05):
            break
    left = family.members(theirs)
    if left or runs(record):
        raise ActionError(
            f"{name} could not be ended: a process of it does not react to SIGKILL.",
            todo="see what it waits for: ps -o pid,stat,wchan:30,args -p "
            + ",".join(map(str, left)),
        )
    family.end_all(theirs, signal.SIGKILL)
    server_logs.end_writer(record.get("log_writer"), host["grace_s"])
    if "temp_dir" in record:
        folders.remove(record["temp_dir"], folders.apart(record["temp_dir"], host["work_dir"]))
    remove_record(state_dir(host), name)
    return ran


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended in between, which is what was wanted
        os.kill(pid, number)


def _readable(host: Host, name: str) -> Record:
    """A node's record as far as it can be read."""
    with suppress(ActionError):
        return read_record(state_dir(host), name) or {}
    return {}


def _ask_to_end(record: Optional[Record]) -> bool:
    """SIGTERM to a node's supervisor; False when there is none."""
    pid = base_records.pid_here(record["supervisor"]) if record else None
    if not record or pid is None or not alive(record["supervisor"]):
        return False
    _signal(pid, signal.SIGTERM)
    return True


def stop(host: Host, only: Optional[set[str]] = None, remove: bool = False) -> dict[str, str]:
    """End all recorded nodes (or only some): stopped, or forgotten when only a record was left.

    Their containers are stopped, and with remove taken away.
    """
    done = {}
    names = [n for n in recorded_nodes(state_dir(host)) if only is None or n in only]
    records = {n: _readable(host, n) for n in names}
    containers: dict[str, Any] = {n: record.get("container") for n, record in records.items()}
    # The proxy goes first: clients get a refused connection rather than half an answer.
    names.sort(key=lambda n: records[n].get("role") != "proxy")
    proxies = [n for n in names if records[n].get("role") == "proxy"]
    for name in proxies:
        done[name] = "stopped" if stop_node(host, name) else "forgotten"
    # All others end side by side.
    asked = {n for n in names if _ask_to_end(_readable(host, n))}
    for name in names[len(proxies) :]:
        ran = stop_node(host, name)
        done[name] = "stopped" if ran or name in asked else "forgotten"
    # Their servers have ended: what keeps the containers running needs no time.
    ended = [{**containers[n], "grace_s": 0} for n in names if containers[n]]
    if remove:
        ended += [{**spec, "grace_s": 0} for spec in host.get("containers", {}).values()]
    for spec in ended:
        (containers_containers.remove if remove else containers_containers.stop)({"spec": spec})
    return done


# What a deployment writes below its work directory; logs only go when that is asked for.
_OURS = (
    *("bundle", "scripts", "state", "facts", "jobs", "archives", "run", caches.FOLDER),
    *("incoming.pyz", "good.pyz"),  # of earlier versions
)
_LOGS = "logs"


def clean(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: {"work_dir", "logs": remove them too, "dry_run", "run": which holds the
    lock}. The lock goes with it, another's never, and the audit file stays.

    Raises InputError when the folder was not made by a deployment, or its lock is another's.
    """
    work_dir = Path(parameters["work_dir"])
    if not work_dir.exists():
        return {"changed": False, "stopped": {}, "removed": []}
    if not base_lock.is_ours(work_dir):
        raise InputError(
            "this folder has nothing that a deployment writes; it is left alone.",
            where=str(work_dir),
            todo="check paths.work_dir",
        )
    names = [*_OURS, _LOGS] if parameters.get("logs") else list(_OURS)
    found = [work_dir / name for name in names if (work_dir / name).exists()]
    if parameters.get("dry_run"):
        return {"changed": False, "stopped": {}, "removed": [str(path) for path in found]}
    run = str(parameters.get("run", ""))
    with locked(work_dir / base_lock.FLOCK, "clean-up", float(parameters.get("wait_s", 0))):
        base_lock.check(work_dir, run)
        stopped = {}
        if (work_dir / "state").is_dir():
            host = read_host(work_dir)
            stopped = stop(host, remove=True)
            boot.remove(host)
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if run:
            lock = base_lock.release(work_dir, run)
            assert lock is not None  # just checked
            base_lock.audit(work_dir, lock["owner"], lock["what"], "ok")
        (work_dir / base_lock.FLOCK).unlink(missing_ok=True)
    if not any(work_dir.iterdir()):
        work_dir.rmdir()
    return {"changed": True, "stopped": stopped, "removed": [str(path) for path in found]}
