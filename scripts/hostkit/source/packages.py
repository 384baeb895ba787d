"""The jobs "install" and "packages": wheels into a Python of this host, and what it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

from hostkit.base import run
from hostkit.base.command import Ended, watch
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.containers import inside
from hostkit.files import regular
from hostkit.source import wheel_files
from hostkit.source.build_state import DIST
from hostkit.source.source_jobs import alone, folder_of
from hostkit.source.wheel_files import normal

_QUICK_S = 120.0  # a Python that starts, on a busy machine
# Run by the Python that is asked; prints what it has of the named packages, by normal name.
_LOOK = r"""
import json, re, sys
sys.path[:] = [place for place in sys.path if place]
from importlib import metadata, util
wanted, found = set(sys.argv[1:]), {}
for one in metadata.distributions():
    name = re.sub(r"[-_.]+", "-", one.metadata["Name"] or "").lower()
    if name not in wanted or name in found:
        continue
    files = [str(path) for path in one.files or ()]
    tops = (one.read_text("top_level.txt") or "").split()
    if not tops:
        tops = {path.split("/")[0] for path in files if path.endswith(".py")}
        tops = [top[:-3] if top.endswith(".py") else top for top in sorted(tops)]
    tops = [top for top in tops if top.isidentifier()]
    try:
        archive = json.loads(one.read_text("direct_url.json") or "{}").get("archive_info", {})
    except ValueError:
        archive = {}
    sha256 = archive.get("hashes", {}).get("sha256")
    sha256 = sha256 or archive.get("hash", "").replace("sha256=", "")
    found[name] = {
        "version": one.version,
        "location": str(one.locate_file("")),
        "sha256": sha256,
        "whole": bool(files) and bool(one.version),
        "importable": all(util.find_spec(top) is not None for top in tops) if tops else None,
    }
print(json.dumps(found))
"""
# Run by the Python that is asked; prints its machine and its version.
_WHICH = """
import json, platform, sys
print(json.dumps([platform.machine(), "%d.%d" % sys.version_info[:2]]))
"""
_ENV = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}
# In pip's output: what it means, what to do about it.
_CAUSES = (
    (
        "externally-managed-environment",
        "this Python belongs to the system's package manager",
        "name one of a virtual environment: --set source.python=DIR/bin/python",
    ),
    (
        "is not a supported wheel",
        "a wheel is for another Python version or machine",
        "build with the Python that they go into: --set source.python=PATH --only build",
    ),
    ("No space left on device", "the disk is full", "make room: df -h"),
    (
        "Permission denied",
        "this user may not write there",
        "run as its owner, or name another Python: --set source.python=PATH",
    ),
    (
        "No matching distribution found",
        "a package that they need is not to be had",
        "give pip an index or a folder (variables PIP_INDEX_URL, PIP_FIND_LINKS), or leave what"
        " they need out: PIP_NO_DEPS=1",
    ),
    (
        "ResolutionImpossible",
        "their needs contradict each other or what is installed",
        "see the lines above; without looking at needs: PIP_NO_DEPS=1",
    ),
)


def install(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have the wheels of dir/build/dist in a Python, in the place of other versions.

    parameters: dir, python, packages, optional, http_proxy; and what inside.where needs to do
    it in a container. What pip is told besides, its own variables (PIP_…) say.
    """
    return inside.where("install", _install, parameters)


def check(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a Python has of the packages. parameters: python, packages, optional; see install."""
    return inside.where("packages", _check, parameters)


def look_argv(python: str, packages: Sequence[str]) -> list[str]:
    """The command that tells what a Python has."""
    return [python, "-c", _LOOK, *(normal(name) for name in packages)]


def uninstall_argv(python: str, packages: Sequence[str]) -> list[str]:
    """The command that removes packages."""
    return [python, "-m", "pip", "uninstall", "--yes", *packages]


def install_argv(python: str, wheels: Sequence[str], *more: str) -> list[str]:
    """The command that installs wheels."""
    return [python, "-m", "pip", "install", *more, *wheels]


def look(python: str, packages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a Python has of the packages, by their names as given; those it lacks are not there."""
    found: dict[str, dict[str, Any]] = ask(look_argv(python, packages))
    return {name: found[normal(name)] for name in packages if normal(name) in found}


def ask(argv: Sequence[str]) -> Any:
    """What a Python prints as JSON. argv: the Python, and what it runs."""
    python = argv[0]
    try:
        done = run.run(list(argv), check=False, cwd=Path("/"), timeout=_QUICK_S)
    except InputError as error:
        raise InputError(
            f"there is no {python} here.",
            where="source.python",
            todo="name the Python whose packages are meant: --set source.python=PATH",
        ) from error
    if done.code != 0:
        raise ActionError(f"{python} cannot say what it has:\n{done.tail}", where="source.python")
    return json.loads(done.out.strip().splitlines()[-1])


def _check(parameters: dict[str, Any]) -> dict[str, Any]:
    python, packages = str(parameters["python"]), list(parameters["packages"])
    free = {normal(name) for name in parameters["optional"]}
    found = look(python, packages)
    rows = []
    for name in packages:
        has = found.get(name, {})
        row = {key: has.get(key) for key in ("version", "location", "importable", "whole")}
        rows.append({"name": name, "needed": normal(name) not in free, **row})
    wrong = [
        row["name"]
        for row in rows
        if (row["needed"] and not row["version"])
        or (row["version"] and not (row["importable"] is not False and row["whole"]))
    ]
    return {"changed": False, "python": python, "packages": rows, "wrong": wrong}


def _install(parameters: dict[str, Any]) -> dict[str, Any]:
    folder = Path(folder_of(parameters))
    if not (folder / DIST).is_dir():
        raise InputError(
            "there is no such folder with wheels.",
            where=str(folder / DIST),
            todo="build them first: scripts/build_from_source.sh --only build, or name the"
            " source's folder: --dir DIR",
        )
    with alone(folder):
        return _bring(folder / DIST, parameters)


def _bring(dist: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    python, packages = str(parameters["python"]), list(parameters["packages"])
    wheels = wheel_files.one_each(dist, packages, parameters["optional"])
    before = look(python, packages)
    wheel_files.check_fit(wheels.values(), *ask([python, "-c", _WHICH]))
    digests = {name: regular.sha256(path) for name, path in wheels.items()}
    new = {
        name: path
        for name, path in wheels.items()
        if before.get(name, {}).get("sha256") != digests[name] or not before[name]["whole"]
    }
    # pip before 23.1 (Debian 12's) keeps only the check sum that it was given.
    exact = {name: f"{new[name].absolute().as_uri()}#sha256={digests[name]}" for name in new}
    old = [name for name in before if name in new or name not in wheels]
    if new or old:
        _check_pip(python)
        _try_first(python, list(exact.values()), parameters)
    broken = [name for name in old if not before[name]["whole"]]
    gone = [name for name in old if name not in broken]
    if gone:
        versions = [f"{name} {before[name]['version']}" for name in gone]
        say(f"removing {', '.join(versions)}")
        _pip(uninstall_argv(python, gone), "removing", python, packages, parameters)
    if new:
        say(f"installing {', '.join(path.name for path in new.values())}")
        # pip cannot remove what an ended installation left without its list of files.
        over = [exact[name] for name in broken if name in new]
        if over:
            words = install_argv(python, over, "--no-deps", "--ignore-installed")
            _pip(words, "installing", python, packages, parameters)
        words = install_argv(python, list(exact.values()))
        _pip(words, "installing", python, packages, parameters)
    return _report(python, packages, wheels, before, new)


def _report(
    python: str,
    packages: Sequence[str],
    wheels: dict[str, Path],
    before: dict[str, dict[str, Any]],
    new: dict[str, Path],
) -> dict[str, Any]:
    """What was done, from what the Python says now."""
    after = look(python, packages)
    rows = []
    for name in packages:
        if name in new and name not in after:
            raise ActionError(
                f"pip said that it installed {new[name].name}, but {python} does not have it.",
                todo=f"{python} -m pip show {name}",
            )
        action = "installed" if name in new else "unchanged" if name in after else "none"
        action = "removed" if name in before and name not in after else action
        row = {"name": name, "action": action, "version": after.get(name, {}).get("version")}
        rows.append({**row, "before": before.get(name, {}).get("version")})
    changed = any(row["action"] in ("installed", "removed") for row in rows)
    return {"changed": changed, "python": python, "packages": rows}


def _check_pip(python: str) -> None:
    done = run.run([python, "-m", "pip", "--version"], check=False, timeout=_QUICK_S, env=_ENV)
    if done.code != 0:
        raise InputError(
            f"{python} has no pip: {done.tail}",
            where="source.python",
            todo=f"{python} -m ensurepip, or install python3-pip, or name another Python:"
            " --set source.python=PATH",
        )


def _try_first(python: str, new: Sequence[str], parameters: dict[str, Any]) -> None:
    """Have pip work out the installation before anything is removed. Raises InputError."""
    if not new:
        return
    words = install_argv(python, new, "--dry-run")
    ended = watch(words, "looking what is needed", env=environment(parameters))
    if ended.code != 0 and "no such option: --dry-run" not in ended.said:
        why, todo = meaning(ended)
        raise InputError(
            f"these wheels cannot be installed, so nothing was removed: {why}.\n{ended.tail}",
            where=python,
            todo=todo,
        )


def _pip(
    argv: list[str],
    what: str,
    python: str,
    packages: Sequence[str],
    parameters: dict[str, Any],
) -> None:
    ended = watch(argv, what, env=environment(parameters))
    if ended.code == 0:
        return
    why, todo = meaning(ended)
    has = look(python, packages)
    free = {normal(name) for name in parameters["optional"]}
    missing = [name for name in packages if name not in has and normal(name) not in free]
    state = f"now missing: {', '.join(missing)}" if missing else "none of them is missing"
    raise ActionError(
        f"{what} failed: {why}; {state}.\n{ended.tail}",
        where=python,
        todo=f"{todo}; then run this again: scripts/build_from_source.sh --only install",
    )


def environment(parameters: dict[str, Any]) -> dict[str, str]:
    """Variables for pip."""
    proxy = parameters.get("http_proxy")
    return {**_ENV, "http_proxy": proxy, "https_proxy": proxy} if proxy else dict(_ENV)


def meaning(ended: Ended) -> tuple[str, str]:
    """Why pip failed, and what to do."""
    for sign, why, todo in _CAUSES:
        if sign in ended.said:
            return why, todo
    return f"pip's exit status is {ended.code}", "see pip's lines above"
