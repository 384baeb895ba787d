"""The job "pip-install": packages of the source's copy on this host, used where they are.

A package is installed again only when it is not installed from here, or what it is built from has
changed since.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote, urlparse

from hostkit.base.command import watch
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.base.writing import read_back, write_atomically
from hostkit.containers import inside
from hostkit.copy import record
from hostkit.source import packages, patch_vllm
from hostkit.source.git import VLLM

_RECORD = "packages.json"
# Run by the Python that is asked: where its packages come from that are used where they are.
_LOOK = """
import json
from importlib import metadata
found = {}
for one in metadata.distributions():
    source = json.loads(one.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        found[source["url"]] = [one.metadata["Name"], one.version]
print(json.dumps(found))
"""


def install(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have the packages in every place of this host where servers run.

    parameters: dir, editable (variables by folder), args, http_proxy, work_dir, patches and
    set_aside (see patch_clone.look); places: [{"python", and what inside.where needs for a
    container}]. Returns changed, and for each place its packages: [{"folder", "action", "why",
    "name", "version"}], and what became of vLLM's patches there.
    """
    code = str(parameters["dir"])
    source = record.used(code, list(parameters["editable"]))
    if source is not None and not source.complete:
        raise InputError(
            "the copy of the source is not complete: a transfer was cut.",
            where=code,
            todo="copy it first: invoke sync-code",
        )
    built = dict(source.built) if source else {}
    kept = Path(parameters["work_dir"]) / _RECORD
    # What is not known, or cannot be read, is installed again, which does no harm.
    known = {name: one for name, one in read_back(kept).items() if isinstance(one, dict)}
    keys = ("dir", "editable", "args", "http_proxy", "patches", "set_aside")
    given = {key: parameters[key] for key in keys}
    found, patched = {}, {}
    for place in parameters["places"]:
        name = place.get("container") or place["python"]
        before = known.get(name, {})
        stale = [folder for folder in built if before.get(folder) != built[folder]]
        result = inside.where("editable", install_here, {**given, **place, "stale": stale})
        found[name], patched[name] = result["packages"], result["patched"]
        known[name] = built
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(known, indent=1) + "\n")
    changed = any(row["action"] != "unchanged" for rows in found.values() for row in rows)
    changed = changed or any(one["action"] in patch_vllm.CHANGED for one in patched.values())
    return {"changed": changed, "places": found, "patched": patched}


def install_here(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "editable": the same in one Python. stale: folders that must be installed again."""
    python, code = str(parameters["python"]), Path(parameters["dir"])
    patched = (
        patch_vllm.ensure(parameters) if str(VLLM) in parameters["editable"] else patch_vllm.NONE
    )
    there = look(python)
    rows = []
    for folder, variables in parameters["editable"].items():
        place = (code / folder).resolve()
        why = _why(place, there, folder in parameters["stale"])
        if why is not None:
            say(f"installing from {place}: {why}")
            _pip(python, place, variables, parameters)
            there = look(python)
            if place not in there:
                raise ActionError(
                    f"pip said that it installed {place}, but {python} does not use it.",
                    todo=f"{python} -m pip list --editable",
                )
        name, version = there[place]
        action = "installed" if why is not None else "unchanged"
        rows.append(
            {"folder": folder, "action": action, "why": why, "name": name, "version": version}
        )
    changed = (
        any(row["action"] != "unchanged" for row in rows) or patched["action"] in patch_vllm.CHANGED
    )
    return {"changed": changed, "packages": rows, "patched": patched}


def _why(place: Path, there: dict[Path, tuple[str, str]], stale: bool) -> Optional[str]:
    """Why a package must be installed; None when it need not."""
    if not place.is_dir():
        raise InputError(
            "there is no such folder to install from.",
            where=str(place),
            todo="copy the source first (invoke sync-code), or correct source.editable",
        )
    if place not in there:
        return "not installed from here"
    return "what it is built from has changed" if stale else None


def look(python: str) -> dict[Path, tuple[str, str]]:
    """Packages that a Python uses where they are: name and version by folder."""
    found: dict[str, list[str]] = packages.ask([python, "-c", _LOOK])
    return {
        Path(unquote(urlparse(url).path)).resolve(): (one[0], one[1]) for url, one in found.items()
    }


def argv(python: str, place: str, args: list[str]) -> list[str]:
    """The command that installs one."""
    return [python, "-m", "pip", "install", *args, "--editable", place]


def _pip(python: str, place: Path, variables: dict[str, str], parameters: dict[str, Any]) -> None:
    env = {**packages.environment(parameters), **variables}
    ended = watch(argv(python, str(place), parameters["args"]), f"installing {place.name}", env=env)
    if ended.code != 0:
        why, todo = packages.meaning(ended)
        raise ActionError(
            f"the installation failed: {why}.\n{ended.tail}",
            where=f"{python}: {place}",
            todo=f"{todo}; then: invoke pip-install",
        )
