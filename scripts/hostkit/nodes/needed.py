"""What the nodes of this host need, why, and what stands against it. Changes nothing.

host is the data of host.json (written by omnikit.prepare.deployment on the control host). What
differs between files is told by name: values stay out of it, for some are secret.
Servers take long to start and the proxy comes last: its program is asked for before all else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import zipfile
from pathlib import Path
from typing import Any, Optional

from hostkit.access import service
from hostkit.base import folders, run
from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.log import some
from hostkit.base.records import (
    Record,
    alive,
    read_record,
    recorded_nodes,
    started,
    survivors,
)
from hostkit.containers import containers, engines, image_look, profile
from hostkit.containers.containers import Spec
from hostkit.copy import record as copy_record
from hostkit.nodes import boot, family, proxy_run, setup_look, taken_ports

Host = dict[str, Any]


def state_dir(host: Host) -> Path:
    """Where the host keeps its records."""
    return Path(host["work_dir"]) / "state"


def look(host: Host, only: Optional[set[str]] = None) -> dict[str, str]:
    """What up would do to each node: start, restart, reload, unchanged or remove. Changes nothing.

    only: these nodes; None: all.
    """
    found = {}
    for node in host["nodes"]:
        if only is not None and node["name"] not in only:
            continue
        record = read_record(state_dir(host), node["name"])
        if record is None or not runs(record):
            found[node["name"]] = "start"
        else:
            differs = (
                record["phase"] in ("failed", "stopped")
                or not alive(record["supervisor"])
                or record.get("digest") != node["digest"]
                or record.get("secrets") != node.get("secrets")
                or source_differs(record, node)
                or container_differs(container_of(host, node))
            )
            if not differs and proxy_run.differs(node):
                # One that waits to be started again takes nothing over.
                runs_now = any(alive(server["process"]) for server in record["servers"])
                found[node["name"]] = "reload" if runs_now else "restart"
            else:
                found[node["name"]] = "restart" if differs else "unchanged"
    planned = {node["name"] for node in host["nodes"]}
    for name in recorded_nodes(state_dir(host)):
        if name not in planned and (only is None or name in only):
            found[name] = "remove"
    return found


def reasons(host: Host, actions: dict[str, str], source: Path) -> dict[str, str]:
    """Why a node is restarted or reloaded. source: the archive with the files that it would get."""
    found = {}
    for node in host["nodes"]:
        if actions.get(node["name"]) == "reload":
            found[node["name"]] = "its configuration differs; no connection is lost"
        if actions.get(node["name"]) != "restart":
            continue
        spec = container_of(host, node)
        record = read_record(state_dir(host), node["name"]) or {}
        if spec and container_differs(spec):
            differences = containers.look(spec).differences
            found[node["name"]] = "its container differs: " + "; ".join(differences)
        elif record.get("digest") != node["digest"]:
            names = of_node(source, Path(host["work_dir"]), node["name"])
            what = f"settings differ: {shown(names)}" if names else ""
            found[node["name"]] = "its " + (what or "engine, model or place differ")
        elif record.get("secrets") != node.get("secrets"):
            found[node["name"]] = "a secret of it differs (proxy.internal_key, server.env)"
        elif record and not alive(record["supervisor"]):
            found[node["name"]] = "its supervisor has ended, its servers have not"
        elif source_differs(record, node):
            found[node["name"]] = f"its source differs: {node['source_dir']} was copied since"
        else:
            found[node["name"]] = "a server of it has failed"
    return found


def images(host: Host) -> dict[str, dict[str, Any]]:
    """The images that the containers are made of, by name, of those that are here: id, labels,
    created.
    """
    found: dict[str, dict[str, Any]] = {}
    for spec in host.get("containers", {}).values():
        image = image_look.find(engines.find(spec["engine"]), spec["image"])
        if spec["image"] not in found and image is not None:
            about = {"labels": image.labels, "created": image.created}
            found[spec["image"]] = {"id": image.id, **about}
    return found


def replaces(host: Host, actions: dict[str, str]) -> list[str]:
    """Nodes that serve now and would be restarted or removed."""
    found = []
    for name, action in actions.items():
        record = read_record(state_dir(host), name)
        if action not in ("restart", "remove") or record is None or record["phase"] != "ready":
            continue
        if all(survivors(server["process"]) for server in record["servers"]):
            found.append(name)
    return found


def fixed(host: Host) -> dict[str, str]:
    """Why another process of a proxy's program cannot take over from the one that runs; by node,
    those that can be replaced left out.
    """
    found = {}
    for node in host["nodes"]:
        record = read_record(state_dir(host), node["name"])
        if node["role"] == "proxy" and record is not None:
            why = _fixed(host, node, record)
            found.update({node["name"]: why} if why else {})
    return found


def _fixed(host: Host, node: dict[str, Any], record: Record) -> str:
    if record["phase"] != "ready" or not alive(record["supervisor"]):
        return "it does not run as it should"
    if node.get("seed_dir", "") is None:  # it has no files to take over
        return "its program does not hand its port over"
    if "hands_over" not in record:
        return "it was started by an earlier version of this toolkit"
    if not record["hands_over"]:
        return (
            "its port cannot be handed over here (pidfd_getfd: Linux 5.6 or newer, and in a"
            " container the capability SYS_PTRACE)"
        )
    place = {"ports": "its address or port", "temp_dir": "its run folder", "log_dir": "its logs"}
    moved = [what for key, what in place.items() if record["place"][key] != node[key]]
    if moved:
        return f"{' and '.join(moved)} would change"
    before, now = (record.get("container") or {}).get("name"), node.get("container")
    if (before or "") != (now or "") or container_differs(container_of(host, node)):
        return "its container would be made anew"
    return ""


def source_differs(record: Record, node: dict[str, Any]) -> bool:
    """Whether what a node uses of the source's copy is not what it was started with."""
    now = copy_record.digest(node.get("source_dir"))
    return now is not None and record.get("source") != now


def container_differs(spec: Optional[containers.Spec]) -> bool:
    """Whether a node's container must be made anew."""
    return spec is not None and containers.look(spec).action in ("create", "recreate")


def container_of(host: Host, node: dict[str, Any]) -> Optional[containers.Spec]:
    """What the node's container is made of; None when it runs on the host itself."""
    return host["containers"][node["container"]] if node.get("container") else None


def runs(record: Record) -> bool:
    """Whether anything of a record still lives."""
    return alive(record["supervisor"]) or bool(family.members(started(record)))


def lacks_weights(host: Host, actions: dict[str, str]) -> bool:
    """Whether nodes that would be started lack the model."""
    return any(
        what == "the model" and not Path(path).exists()
        for node in host["nodes"]
        if actions.get(node["name"]) in ("start", "restart")
        for path, what in node["requires"]
    )


def problems(host: Host, actions: dict[str, str]) -> list[str]:
    """Why the nodes that would be started cannot be. Changes nothing."""
    found = []
    starting = [n for n in host["nodes"] if actions.get(n["name"]) in ("start", "restart")]
    if sys.version_info < (3, 9):  # noqa: UP036 (the host's Python, whatever it is)
        found.append(
            f"Python {sys.version.split()[0]} runs here, 3.9 or newer is needed."
            f" What to do: install one and set hosts.{host['host']}.python"
        )
    unsafe = folders.fault(host)
    found += [unsafe] if unsafe else []
    ours = our_pids(host)
    possible = []
    for node in starting:
        for address, port in node["ports"]:
            if taken_ports.is_taken(address, port):
                owner = taken_ports.owner(port)
                if not any(f"pid {pid} " in owner for pid in ours):
                    found.append(
                        f"port {port}, planned for {node['name']}, is taken by {owner}."
                        " What to do: end that process, or plan another port (make plan)"
                    )
        for path, what in node["requires"]:
            if not Path(path).exists():
                found.append(f"{what} is missing: there is no {path}.{_remedy(what, Path(path))}")
            elif not os.access(path, os.R_OK):
                found.append(f"{what} cannot be read: {path}. What to do: check its rights")
        against = _container_problems(host, node)
        found += against
        spec = container_of(host, node)
        if spec is not None and not against:
            possible.append(spec)
        lacks = None if against else problem(node, spec)
        if lacks:
            found.append(f"{lacks.what} What to do: {lacks.todo}")
        source = copy_record.used(node["source_dir"]) if node.get("source_dir") else None
        if source is not None and not source.complete:
            found.append(
                f"the copy of the source in {node['source_dir']} is not complete: a transfer was"
                " cut. What to do: invoke sync-code"
            )
    for node in host["nodes"]:
        wanted = node["name"] in actions and "tls" in node
        fault = service.problem(node["tls"]) if wanted else None
        found += [fault] if fault else []
    wrong = [one for one in setup_look.problems(possible) if one.asked]
    found += [f"{one.what} What to do: {one.todo}" for one in wrong]
    need = sum(n["memory_mib"] for n in starting if actions[n["name"]] == "start")
    left = taken_ports.memory_available_mib()
    if left is not None and need > left:
        found.append(
            f"the servers to start need about {need} MiB of memory, {left} MiB are available."
            " What to do: end other programs, plan fewer servers, or correct"
            " engine.memory_per_server_mib"
        )
    return found


def notes(host: Host, actions: dict[str, str]) -> list[str]:
    """What a person should know before the nodes are started, though nothing forbids it."""
    starting = [n for n in host["nodes"] if actions.get(n["name"]) in ("start", "restart")]
    said: list[Optional[str]] = [proxy_run.unbound(node.get("cores", 0)) for node in starting]
    said += [service.note(node["tls"]) for node in host["nodes"] if node.get("tls")]
    said += [boot.hindrance(host)]
    return [text for text in said if text]


def _remedy(what: str, path: Path) -> str:
    """How what a node requires gets onto this host. A deployment itself installs it only where the
    control host is the one host.
    """
    if what == "the model":
        return (
            f" What to do: bring it to {path.parent} on this host (invoke distribute-weights, where"
            " another host or this machine has it), or set model.path"
        )
    if what == "the engine" and path.parent.name == "bin":
        return (
            " What to do: install it on this host, in a clone of the toolkit:"
            f" scripts/install_engine.py --venv {path.parents[1]};"
            " or name where it is: engine.venv"
        )
    return " What to do: install it on this host, or correct server.command"


def _container_problems(host: Host, node: dict[str, Any]) -> list[str]:
    spec = container_of(host, node)
    if spec is None:
        return []
    try:
        if container_differs(spec):
            own = (node["log_dir"], node.get("source_dir", ""))
            return containers.problems(spec, (str(Path(host["temp_dir"]).parent), *own))
    except ToolkitError as error:
        return [str(error)]
    return []


def our_pids(host: Host) -> set[int]:
    """Every live process of what the records name."""
    pids: set[int] = set()
    for name in recorded_nodes(state_dir(host)):
        record = read_record(state_dir(host), name)
        pids.update(family.members(started(record)) if record else ())
    return pids


_EXPORT = re.compile(r"^\s*export ([A-Za-z_][A-Za-z0-9_]*)=")
_FLAG = re.compile(r"^\s*(--[A-Za-z0-9_-]+)(?: (.*?))?( \\)?$")
_SHOWN = 4


def of_node(source: Path, work_dir: Path, node: str) -> list[str]:
    """Variables, flags and files of a node that would change; none where that cannot be told.

    source: the shipped archive; work_dir holds what was unpacked last.
    """
    if not zipfile.is_zipfile(source):
        return []
    found: list[str] = []
    with zipfile.ZipFile(source) as archive:
        names = {name for name in archive.namelist() if _concerns(name, node)}
        there = {
            str(path.relative_to(work_dir))
            for folder in (node, "ranktable")
            for path in (work_dir / "bundle" / folder).rglob("*")
            if path.is_file()
        }
        for name in sorted(names | there):
            new = archive.read(name).decode() if name in names else ""
            old = (work_dir / name).read_text(encoding="utf-8") if name in there else ""
            if new == old:
                continue
            lines = of_script(old, new) if name.endswith(".sh") else []
            found += lines or [name[len("bundle/") :]]
    return found


def shown(names: list[str]) -> str:
    """For one line."""
    return some(names, _SHOWN)


def of_script(old: str, new: str) -> list[str]:
    """Variables and flags that differ between two start scripts; of JSON also which keys. Pure."""
    before, after = _named(old), _named(new)
    names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    return [_keys(name, before.get(name, ""), after.get(name, "")) for name in names]


def _concerns(name: str, node: str) -> bool:
    return name.startswith((f"bundle/{node}/", "bundle/ranktable/"))


def _named(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        export, flag = _EXPORT.match(line), _FLAG.match(line)
        if export:
            found[export[1]] = found.get(export[1], "") + line
        elif flag:
            found[flag[1]] = flag[2] or ""
    return found


def _keys(name: str, old: str, new: str) -> str:
    try:
        before, after = (json.loads("".join(shlex.split(text))) for text in (old, new))
    except ValueError:
        return name
    if not isinstance(before, dict) or not isinstance(after, dict):
        return name
    keys = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    return f"{name} ({', '.join(keys)})"


# Of the words before "--", programs, the first that is there; of those after it, files, all that
# are not. A name without a folder is looked for in PATH, which the container's profile has set.
_LOOK = """while [ "$1" != -- ]; do
  [ -n "$found" ] || found=$(command -v -- "$1")
  shift
done
shift
printf 'program %s\n' "$found"
for file; do
  [ -f "$file" ] || printf 'lacks %s\n' "$file"
done
"""


def problem(node: dict[str, Any], spec: Optional[Spec]) -> Optional[InputError]:
    """What a proxy's node lacks on this host, or in its container; None for other nodes.

    None as well where no container can be had to ask in, or no answer: its maker will hear why.
    """
    if "programs" not in node:
        return None
    modules = node.get("modules", [])
    if spec is None:
        return proxy_run.lacking("this host", node["programs"], modules)
    place = f"container {spec['name']}"
    words = ["sh", "-c", _LOOK, "sh", *node["programs"], "--", *modules]
    try:
        done = setup_look.answer(spec, profile.words(spec["profile"], place, words))
    except (setup_look.Refused, run.Outlasted):
        return None
    lines = [line.partition(" ") for line in done.out.splitlines()]
    if done.code != 0:  # of its environment, say, which is looked at by itself
        return None
    found = any(kind == "program" and path for kind, _, path in lines)
    lacks = [path for kind, _, path in lines if kind == "lacks"]
    return proxy_run.refusal(f"the {place}", node["programs"], found, lacks)
