"""The build from source on this host: omni-infer's own script, watched, and its wheels checked.

That script may end with status 0 though one of its steps failed. So a build counts as done when
new, whole wheels are there and nothing in its output says that a step was left out.
"""

from __future__ import annotations

import os
import platform
import re
import signal
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base import health, records
from hostkit.base.command import Ended, watch
from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.files import regular
from hostkit.source import build_state, clone_look, git, wheel_files
from hostkit.source.build_state import DIST, LOG, State
from hostkit.source.git import VLLM

_GRACE_S = 10.0  # from SIGTERM to SIGKILL for what a killed run left behind
# In the output: what it means, what to do about it. FATAL also where the script ends well.
_FATAL = (
    (
        r"error: patch failed|patch does not apply",
        "a patch of omni-infer does not fit this vLLM, so the wheels would lack it",
        "set source.vllm_ref to the version that this omni-infer is for; if {vllm} was patched by"
        " hand: git -C {vllm} stash --include-untracked",
    ),
    (
        r"error: pathspec '[^']+'",
        "the build wants to check out a version that the clone does not have",
        "set source.vllm_ref to that version and fetch it: --only fetch",
    ),
)
_CAUSES = (
    *_FATAL,
    (r"No space left on device", "the disk is full", "make room: df -h {code}"),
    (
        r"No module named '?[\w.]+'?",
        "a Python module that the build needs is not installed",
        "install it for the Python that builds, or build in the container: --in-container NAME",
    ),
    (
        r"\S+: command not found",
        "a program that the build needs is not installed",
        "install it, or build in the container: --in-container NAME",
    ),
    (
        r"Could not resolve host|Connection refused|NewConnectionError|Temporary failure in name"
        r"|Network is unreachable|timed out",
        "something that the build downloads cannot be reached",
        "set PIP_INDEX_URL to a mirror, or fleet.http_proxy",
    ),
    (r"MemoryError|Cannot allocate memory|\bKilled\b", "memory ran out", "free -m; MAX_JOBS=1"),
    (r"Permission denied", "a file may not be read, run or written", "see the lines above"),
)


def argv(parameters: dict[str, Any]) -> list[str]:
    """The command that builds."""
    return [str(word) for word in parameters["build"]]


def build(parameters: dict[str, Any]) -> dict[str, Any]:
    """Build the wheels unless those of these sources are there. See source_jobs.build."""
    code = Path(parameters["dir"])
    packages = list(parameters["packages"])
    _check_sources(code)
    record = build_state.read(code)
    _end_left(record)
    now = {name: build_state.state(code, name) for name in build_state.folders(code)}
    if _is_built(code, record, parameters, now):
        return _result(code, "unchanged", packages)
    clone_look.check_space(code, parameters["free_mib"], "the build")
    notes = []
    for name, one in now.items():
        whose = build_state.ours(code, name, record, one, parameters["patches"])
        if one.changed and whose:
            build_state.put_back(code, name, whose)
            now[name] = State(one.commit, clone_look.CLEAN)
        elif one.changed:
            notes.append(f"{name} has {len(one.changed)} changes that are in no commit")
    _clear(code, record, packages)
    record = {
        "done": False,
        "command": argv(parameters),
        "python": parameters["python"],
        "sources": {n: {"commit": one.commit, "before": one.digest} for n, one in now.items()},
        "wheels": {},
    }
    _run(code, record, parameters)
    _check_wheels(code, parameters)
    record["done"] = True
    record["wheels"] = build_state.wheels(code, packages)
    build_state.write(code, record)
    return _result(code, "built", packages, "; ".join(notes))


def _check_sources(code: Path) -> None:
    for name, folder in build_state.folders(code).items():
        if not folder.is_dir() or not any(folder.iterdir()):
            raise InputError(
                f"the source of {name} is not here.",
                where=str(folder),
                todo="fetch it first: scripts/build_from_source.py --only fetch, or name its"
                " folder: --dir DIR",
            )
        if clone_look.read_mark(folder).get("state") in (
            clone_look.NEW,
            clone_look.MOVING,
        ):
            raise InputError(
                f"the source of {name} is half fetched.",
                where=str(folder),
                todo="end that first: scripts/build_from_source.py --only fetch",
            )


def _is_built(
    code: Path, record: dict[str, Any], parameters: dict[str, Any], now: dict[str, State]
) -> bool:
    """Whether the wheels of exactly these sources are there."""
    if not record.get("done") or not record.get("wheels"):
        return False
    asked = (argv(parameters), parameters["python"])
    if (record.get("command"), record.get("python")) != asked:
        return False
    for name, one in now.items():
        then = record.get("sources", {}).get(name, {})
        if one.commit is None or one.commit != then.get("commit"):
            return False
        if one.digest not in (then["before"], then.get("after")):
            return False
    there: dict[str, str] = build_state.wheels(code, list(parameters["packages"]))
    return there == dict(record["wheels"])


def _clear(code: Path, record: dict[str, Any], packages: Sequence[str]) -> None:
    """Wheels of before go aside: what is there afterwards is new. Half-written ones go."""
    for paths in wheel_files.find(code / DIST, packages).values():
        for path in paths:
            if record.get("done") is False and wheel_files.fault(path):
                path.unlink()
                continue
            aside = code / DIST / "replaced"
            aside.mkdir(exist_ok=True)
            path.replace(aside / path.name)


def _end_left(record: dict[str, Any]) -> None:
    """End what is left of a build whose run was killed: it would write where this one does."""
    process = record.get("process")
    if record.get("done") or not records.survivors(process):
        return
    say("ending what is left of a build that was cut off")
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in records.survivors(process):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        if health.wait_until(lambda: not records.survivors(process), _GRACE_S, 0.1):
            return
    raise ActionError("a build that was cut off cannot be ended.", todo="ps -ef; end it by hand")


def _run(code: Path, record: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Run the script; whatever becomes of it, what it did to the sources is written down."""
    log = code / LOG

    def on_start(pid: int) -> None:
        record["process"] = records.identity(pid)
        build_state.write(code, record)

    build_state.write(code, record)  # from here on the sources may change
    (code / DIST).mkdir(parents=True, exist_ok=True)
    say(f"building in {code}; its output: {log}")
    try:
        ended = watch(
            argv(parameters),
            "building",
            log=log,
            env=environment(code, parameters),
            cwd=code,
            on_start=on_start,
        )
    finally:
        for name, then in record["sources"].items():
            after = build_state.state(code, name)
            if after.commit == then["commit"]:
                then["after"] = after.digest
        build_state.write(code, record)
    text = log.read_text(errors="replace")
    fatal = next((c for c in _FATAL if re.search(c[0], text)), None)
    if ended.code != 0 or fatal:
        raise _failed(code, ended, text)
    for name, then in record["sources"].items():
        if "after" not in then:
            moved = build_state.state(code, name).commit
            raise ActionError(
                f"the build has moved {name} from {then['commit']} to {moved} and built that.",
                where=str(build_state.folders(code)[name]),
                todo=f"set source.{name}_ref to what this build is for, then: --only fetch"
                " --only build",
            )


def environment(code: Path, parameters: dict[str, Any]) -> dict[str, str]:
    """Variables for the build."""
    trusted = [str(folder) for folder in build_state.folders(code).values()]
    env = {
        "PYTHONUNBUFFERED": "1",
        "GIT_TERMINAL_PROMPT": "0",
        # In a container the folders may belong to another user, and the script calls git there.
        "GIT_CONFIG_COUNT": str(len(trusted)),
    }
    for number, folder in enumerate(trusted):
        env[f"GIT_CONFIG_KEY_{number}"] = "safe.directory"
        env[f"GIT_CONFIG_VALUE_{number}"] = folder
    python = str(parameters["python"])
    if "/" in python:  # the script calls python by its name
        env["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if parameters.get("http_proxy"):
        env.update(http_proxy=parameters["http_proxy"], https_proxy=parameters["http_proxy"])
    return env


def _check_wheels(code: Path, parameters: dict[str, Any]) -> None:
    try:
        found = wheel_files.one_each(code / DIST, parameters["packages"], parameters["optional"])
        wheel_files.check_fit(found.values(), platform.machine())
    except InputError as error:
        text = (code / LOG).read_text(errors="replace")
        raise _failed(code, Ended(0, text[-65536:]), text, error.what) from error


def _failed(code: Path, ended: Ended, text: str, what: Optional[str] = None) -> ActionError:
    """The error of a failed build: its last lines and the likely cause."""
    why = what or f"its exit status is {ended.code}."
    todo = f"read its output: less {code / LOG}"
    for sign, cause, mend in _CAUSES:
        match = re.search(sign, text)
        if match:
            found = match[0].strip()
            why += f" Likely: {cause} ({found})."
            todo = mend.format(code=code, vllm=code / VLLM)
            break
    return ActionError(
        f"the build failed: {why}\n{ended.tail}", where=str(code / LOG), todo=git.hide(todo)
    )


def _result(code: Path, action: str, packages: Sequence[str], note: str = "") -> dict[str, Any]:
    found = [path for paths in wheel_files.find(code / DIST, packages).values() for path in paths]
    made = [
        {"file": p.name, "version": wheel_files.version(p), "sha256": regular.sha256(p)}
        for p in found
    ]
    result = {"changed": action != "unchanged", "action": action, "wheels": made}
    result.update(dir=str(code), log=str(code / LOG))
    return {**result, "note": note} if note else result
