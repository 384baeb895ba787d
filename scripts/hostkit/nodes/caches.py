"""What engines compile when they start, kept by what it was compiled for: caches/<key> below the
work directory, with key.json, which says of what the key was made and which files were there when
real requests had passed. Without a right key.json no folder is used.

host and node are those of host.json; node["cache"] is there where this is wanted (caches.use).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator, Optional

from hostkit.base import writing
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say, some
from hostkit.base.records import alive, read_record, recorded_nodes
from hostkit.containers import engines, image_look
from hostkit.copy import record as copy_record
from hostkit.files import regular
from hostkit.ranks import device_query
from hostkit.spread import folder as spread_folder

Host = dict[str, Any]
FOLDER, KEY = "caches", "key.json"
# Below caches/, where no key has such a name: which folder a node uses; what is on its way here;
# folders of nodes whose key cannot be told; the last folder that was refused.
OF, INCOMING, UNKEPT, ASIDE = "of", "incoming", "unkept", "aside"
_FORMAT = 1


# --- the key --------------------------------------------------------------------------------------


def inputs(host: Host, node: dict[str, Any]) -> dict[str, Any]:
    """All that compiled code depends on: what was planned, and what only this host can say.

    Raises InputError, ActionError where it cannot.
    """
    planned = node["cache"]["inputs"]
    made = {
        **planned,
        "architecture": platform.machine(),
        "source": copy_record.digest(node.get("source_dir")),
        "model": _hash(planned["model"]),
    }
    spec = host["containers"][node["container"]] if node.get("container") else None
    if spec is not None:
        made["image"] = _image(spec["engine"], spec["image"])
    else:
        made["programs"], made["packages"] = _programs(planned["command"])
    if planned["devices"]["kind"] == "npu":
        made["driver"], made["chips"] = _npus(json.dumps(host["ranktable"]))
    return made


def key(found: dict[str, Any]) -> str:
    """The name of what these make."""
    text = json.dumps(found, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hash(model: str) -> str:
    """Of a model's configuration: its folder may have been filled anew."""
    path = Path(model) / "config.json"
    try:
        return hashlib.sha256(regular.data(path)).hexdigest()
    except OSError as error:
        said = f"the model's configuration cannot be read: {error.strerror}."
        todo = "bring the model there, or set model.path"
        raise InputError(said, where=str(path), todo=todo) from error


def _image(engine: str, name: str) -> str:
    found = image_look.find(engines.find(engine), name)
    if found is None:
        raise InputError(f"the image {name} is not on this host.", todo="invoke pull-image")
    return found.id


def _programs(command: list[str]) -> tuple[dict[str, str], str]:
    """Hashes of the files that a command without a container begins with, and one over the releases
    of the Python packages beside its program.
    """
    paths = [shutil.which(word) or word for word in command[:1]] + command[1:]
    files = [path for path in paths if path.startswith("/") and Path(path).is_file()]
    if not files:
        raise InputError(f"{command[0]} is not on this host.", where="server.command")
    hashes = {path: regular.sha256(Path(path)) for path in files}
    prefixes = {Path(files[0]).parents[1]}
    if not any((prefix / "pyvenv.cfg").is_file() for prefix in prefixes):
        prefixes.add(Path(os.path.realpath(files[0])).parents[1])
    names = sorted(
        path.name
        for prefix in prefixes
        for path in prefix.glob("lib*/python3*/*-packages/*.dist-info")
    )
    return hashes, hashlib.sha256("\n".join(names).encode()).hexdigest()


@lru_cache(maxsize=2)
def _npus(ranktable: str) -> tuple[str, list[str]]:
    info = device_query.npu_info(device_query.tools(json.loads(ranktable)))
    return info.version, sorted({chip.name for chip in info.chips})


# --- a folder -------------------------------------------------------------------------------------


def root(host: Host) -> Path:
    """Where they all are."""
    return Path(host["work_dir"]) / FOLDER


def used_by(host: Host, name: str) -> Optional[Path]:
    """The folder that a node was started with."""
    try:
        return Path((root(host) / OF / name).read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def fault(place: Path, found: dict[str, Any]) -> str:
    """Why a folder is not to be used for this; "": it may be."""
    if not (place / KEY).is_file():
        return f"it has no {KEY}: no deployment was proved with it"
    try:
        told = regular.parsed(place / KEY)
        before, files = told["inputs"], told["files"]
        sizes = {name: int(one["size"]) for name, one in files.items()}
        if told["format"] != _FORMAT or not isinstance(before, dict):
            raise ValueError("it is of another form")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {KEY} is damaged: {error}"
    if before != found or told["key"] != key(found) or place.name != key(found):
        names = sorted(one for one in {**before, **found} if before.get(one) != found.get(one))
        return f"its {KEY} is of something else: {some(names) or 'another key'} differs"
    # Servers add to it, and may write more into a file; what is gone or cut was damaged.
    short = [name for name, size in sizes.items() if _size(place / name) < size]
    return f"{some(short, 3)} is not there, or is shorter than {KEY} says" if short else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _files(place: Path) -> list[str]:
    """What is in a folder: regular files alone, hidden ones too."""
    found = []
    for here, folders, names in os.walk(place):
        folders[:] = [one for one in folders if one != spread_folder.STAGING]
        paths = (Path(here) / name for name in names)
        found += [str(p.relative_to(place)) for p in paths if p.is_file() and not p.is_symlink()]
    return sorted(one for one in found if one != KEY)


def _seal(host: Host, place: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Write key.json of what is there now; only what was written since is read again."""
    names = _files(place)
    before = spread_folder.known(host["work_dir"], place)
    todo = [name for name in names if name not in before]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        new = dict(zip(todo, pool.map(lambda name: regular.sha256(place / name), todo)))
    spread_folder.note(host["work_dir"], place, new)
    files = {
        name: {
            "size": (place / name).stat().st_size,
            "sha256": new.get(name) or before[name]["sha256"],
        }
        for name in names
    }
    told = {"format": _FORMAT, "key": place.name, "inputs": found, "files": files}
    writing.write_atomically(place / KEY, json.dumps(told, indent=1) + "\n")
    return told


# --- a node's start -------------------------------------------------------------------------------


def choose(host: Host, node: dict[str, Any]) -> None:
    """Have a folder for a node that is about to be started, and tell its start script which.

    One that may not be used is put aside, unless servers that run have it.
    """
    if "cache" not in node:
        return
    try:
        found = inputs(host, node)
    except (InputError, ActionError) as error:
        place = root(host) / UNKEPT / node["name"]
        say(f"{node['name']}: what it compiles is not kept, its key cannot be told: {error.what}")
        if place.exists():
            _put_aside(host, place)
    else:
        place = root(host) / key(found)
        why = fault(place, found) if place.exists() else ""
        if why and place not in _in_use(host):
            say(f"{node['name']}: {place} is put aside and compiled anew: {why}")
            _put_aside(host, place)
    for variable in node["cache"]["variables"]:
        (place / variable).mkdir(parents=True, exist_ok=True)
    if (place / KEY).exists():
        os.utime(place / KEY)
    (root(host) / OF).mkdir(exist_ok=True)
    writing.write_atomically(root(host) / OF / node["name"], f"{place}\n")


def _put_aside(host: Host, place: Path) -> None:
    """For a person to look at; the last one alone is kept. Its files may be those of a container's
    root, which others cannot remove: they have to be out of the way all the same.
    """
    aside = root(host) / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True, exist_ok=True)
    place.replace(aside / f"{place.name}.{time.time_ns()}")


def _in_use(host: Host, phase: str = "") -> set[Path]:
    """Folders of nodes that run. phase: and are in that one."""
    state = Path(host["work_dir"]) / "state"
    found = set()
    for name in recorded_nodes(state):
        record, place = read_record(state, name), used_by(host, name)
        if record and place and alive(record["supervisor"]) and phase in ("", record["phase"]):
            found.add(place)
    return found


# --- jobs -----------------------------------------------------------------------------------------


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: the key of each node, and whether its folder is here. Changes nothing.

    parameters: host. nodes: by name {"key", "dir", "state": whole, none, refused or unknown, "why",
    "bytes", "ranks"}.
    """
    host = parameters["host"]
    return {"changed": False, "nodes": {n["name"]: _looked(host, n) for n in _wanting(host)}}


def _wanting(host: Host) -> Iterator[dict[str, Any]]:
    return (node for node in host["nodes"] if "cache" in node)


def _looked(host: Host, node: dict[str, Any]) -> dict[str, Any]:
    ranks = node["cache"]["ranks"]
    try:
        found = inputs(host, node)
    except (InputError, ActionError) as error:
        return {"state": "unknown", "why": error.what, "key": "", "bytes": 0, "ranks": ranks}
    place = root(host) / key(found)
    told = {"key": place.name, "dir": str(place), "why": "", "bytes": 0, "ranks": ranks}
    if not place.exists():
        return {**told, "state": "none"}
    why = fault(place, found)
    if why:
        fills = place in _in_use(host)
        return {**told, "state": "none" if fills else "refused", "why": "" if fills else why}
    return {**told, "state": "whole", "bytes": sum(_size(place / one) for one in _files(place))}


def keep(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: real requests have passed: what the nodes that run have compiled may be used from now
    on. Folders that nothing uses go, but those that were used last.

    parameters: host, kept (how many of those stay). kept, removed: keys.
    """
    host, made, left = parameters["host"], set(), []
    for node in _wanting(host):
        place = used_by(host, node["name"])
        if place not in _in_use(host, "ready") or place.name in made or place.parent != root(host):
            continue
        found = inputs(host, node)
        if place.name == key(found):  # else the image's name leads to another one by now
            _seal(host, place, found)
            made.add(place.name)
    if root(host).is_dir():
        left = _prune(host, parameters["kept"])
    return {"changed": bool(made or left), "kept": sorted(made), "removed": left}


def _prune(host: Host, kept: int) -> list[str]:
    top, used = root(host), _in_use(host)
    planned = {node["name"] for node in _wanting(host)}
    used |= {place for name in planned if (place := used_by(host, name))}
    for path in (top / OF).glob("*"):
        if path.name not in planned and used_by(host, path.name) not in _in_use(host):
            path.unlink()
    shutil.rmtree(top / INCOMING, ignore_errors=True)  # of a transfer that was cut, for another key
    others = [one for one in top.iterdir() if one not in used]
    others = [one for one in others if one.name not in (OF, UNKEPT, ASIDE)]
    whole = [one for one in others if (one / KEY).is_file()]
    whole.sort(key=lambda one: (one / KEY).stat().st_mtime, reverse=True)
    stay = set(whole[:kept])
    for one in others:
        if one not in stay:
            shutil.rmtree(one)
    unkept = [one for one in (top / UNKEPT).glob("*") if one not in used]
    for one in unkept:
        shutil.rmtree(one)
    return sorted(one.name for one in others if one not in stay)


def offer(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: the files of a key for other hosts, those without a byte apart, and its key.json.

    parameters: host, node (one of that key), key. What a server that is ready has added since is
    listed first; else the files have to be what key.json says.
    """
    host, place = parameters["host"], root(parameters["host"]) / parameters["key"]
    node = next(one for one in _wanting(host) if one["name"] == parameters["node"])
    found = inputs(host, node)
    why = fault(place, found)
    if why:
        raise ActionError(f"it cannot be given to others: {why}.", where=str(place))
    if place in _in_use(host, "ready"):
        told = _seal(host, place, found)
    else:
        told = regular.parsed(place / KEY)
        given = {"dir": str(place), "files": told["files"], "work_dir": host["work_dir"]}
        wrong = sorted(set(told["files"]) - set(spread_folder.present(given)))
        if wrong:
            raise ActionError(
                f"{some(wrong, 3)} is not what {KEY} says.",
                where=str(place),
                todo="remove that folder: the next start compiles anew",
            )
    files = {name: one for name, one in told["files"].items() if one["size"]}
    return {"changed": False, "files": files, "record": told}


def take(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: what has arrived in caches/incoming/<key> becomes the folder of that key.

    parameters: host, node, record (the giver's key.json). Raises ActionError where it is not what
    this host needs, and then it is gone.
    """
    host, told = parameters["host"], parameters["record"]
    node = next(one for one in _wanting(host) if one["name"] == parameters["node"])
    name = key(inputs(host, node))
    came, place = root(host) / INCOMING / name, root(host) / name
    names = [one.split("/") for one in told["files"]]
    if told["key"] != name or any(part in ("", ".", "..") for one in names for part in one):
        shutil.rmtree(root(host) / INCOMING)
        raise ActionError(f"what came is of {told['key']}, and this host needs {name}.")
    for one, about in told["files"].items():
        if not about["size"]:
            (came / one).parent.mkdir(parents=True, exist_ok=True)
            (came / one).touch()
    came.mkdir(parents=True, exist_ok=True)  # of a cache without a file
    writing.write_atomically(came / KEY, json.dumps(told, indent=1) + "\n")
    why = fault(came, inputs(host, node))
    if why:
        shutil.rmtree(came)
        raise ActionError(f"what came cannot be used: {why}.", where=str(came))
    if place in _in_use(host):
        shutil.rmtree(came)
        raise ActionError("servers that run fill that folder by now.", where=str(place))
    if place.exists():
        say(f"{place} is put aside: {fault(place, inputs(host, node)) or 'another one came'}")
        _put_aside(host, place)
    came.replace(place)
    return {"changed": True}
