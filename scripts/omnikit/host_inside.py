"""A job in a container of this host: the same code, shipped into it and run by its Python.

Standard library only: this module runs on the hosts and in containers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

from omnikit import health, host_engine, host_jobs, run
from omnikit.errors import ActionError, InputError, ToolkitError
from omnikit.host_engine import Engine
from omnikit.log import say
from omnikit.terminate import as_interrupt

_PARAMETERS = "OMNIKIT_JOB_PARAMETERS"
_CALL = "OMNIKIT_JOB_CALL"
_ANSWER = "omnikit-answer: "  # the line with the result: the two outputs may come mixed
_HERE = ("container", "engine", "container_python", "archive")
# Started by the container's Python with the archive and a verb: PYTHONPATH would be inherited.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from omnikit.host_inside import main; sys.exit(main())"
)
_OLDEST = (3, 9)
_GRACE_S = 20.0  # from SIGTERM to SIGKILL: a job ends what it has started itself
_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $PATH")


def where(
    job: str, act: Callable[[dict[str, Any]], dict[str, Any]], parameters: dict[str, Any]
) -> dict[str, Any]:
    """Do a job here, or in the container that its parameters name.

    parameters: container (a name, or nothing), engine (docker, podman, auto), container_python,
    archive (the shipped code; nothing: what this runs from).
    """
    given = {key: value for key, value in parameters.items() if key not in _HERE}
    if not parameters.get("container"):
        return act(given)
    archive = Path(parameters.get("archive") or sys.argv[0]).resolve()
    engine = host_engine.find(parameters["engine"])
    container = parameters["container"]
    return inside(engine, container, parameters["container_python"], archive, job, given)


def inside(
    engine: Engine,
    container: str,
    python: str,
    archive: Path,
    job: str,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Do a job in a running container. What it says goes on to standard error.

    Raises InputError when the container or its Python is not there, and what the job raises.
    """
    _check(engine, container, archive)
    _check_python(engine, container, python)
    call = secrets.token_hex(8)  # a name that nobody could have put there before
    there = f"/tmp/omnikit-{call}.pyz"
    start = [python, "-c", _START, there]
    words = ["exec", "-e", _PARAMETERS, "-e", f"{_CALL}={call}", container, *start, job]
    said: list[str] = []
    answer: list[str] = []

    def heard(line: str) -> None:
        if line.startswith(_ANSWER):
            answer.append(line[len(_ANSWER) :])
        else:
            said[:] = [*said, line][-20:]
            say(line)

    try:
        _copy(engine, container, archive, there)
        code = run.stream(engine.argv(*words), heard, env={_PARAMETERS: json.dumps(parameters)})
    except BaseException:
        # Without its client, what runs in a container runs on.
        engine.ask("exec", container, *start, "--end", call, check=False)
        raise
    finally:
        _remove(engine, container, python, there)
    if answer:
        return _result(container, json.loads(answer[-1]))
    raise ActionError(
        f"the job in the container {container} ended with exit status {code}:\n" + "\n".join(said),
        todo=f"see whether it still runs: {engine.kind} ps -a",
    )


def _check(engine: Engine, container: str, archive: Path) -> None:
    if not zipfile.is_zipfile(archive):
        raise InputError(f"the toolkit's code for hosts is not there: {archive}.")
    there = engine.inspect("container", container)
    if there is None:
        raise InputError(
            f"there is no container {container} on this host.",
            where="--in-container",
            todo=f"start it: scripts/start_container.sh IMAGE {container}; which there are:"
            f" {engine.kind} ps -a",
        )
    if not there["State"]["Running"]:
        raise InputError(
            f"the container {container} does not run.",
            where="--in-container",
            todo=f"start it: {engine.kind} start {container}",
        )


def _copy(engine: Engine, container: str, archive: Path, there: str) -> None:
    with tempfile.TemporaryDirectory(prefix="omnikit-") as private:
        copy = Path(private) / "host.pyz"
        shutil.copyfile(archive, copy)
        copy.chmod(0o644)  # the container's user is perhaps not the one who copies
        engine.ask("cp", str(copy), f"{container}:{there}")


def _remove(engine: Engine, container: str, python: str, path: str) -> None:
    code = "import os, sys; os.unlink(sys.argv[1])"
    # The engine has put it there as root.
    engine.ask("exec", "-u", "0", container, python, "-c", code, path, check=False)


def _result(container: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The job's result. Raises what the job raised."""
    error = answer.get("error")
    if error is None:
        result: dict[str, Any] = answer["result"]
        return result
    kind = InputError if error["exit_code"] == InputError.exit_code else ActionError
    place = f"container {container}" + (f": {error['where']}" if error["where"] else "")
    raise kind(error["what"], where=place, todo=error["todo"])


def _check_python(engine: Engine, container: str, python: str) -> None:
    code = "import sys; print('python', *sys.version_info[:2])"
    done = engine.ask("exec", container, python, "-c", code, check=False)
    name, *version = [*done.out.split(), ""]
    if done.code == 0 and name == "python" and (int(version[0]), int(version[1])) >= _OLDEST:
        return
    if any(sign in done.err + done.out for sign in _NOT_FOUND):
        what = f"the container {container} has no {python}."
    else:
        what = f"{python} of the container {container} is no Python 3.9 or newer:\n{done.tail}"
    raise InputError(what, todo="name one that it has: --set container.python=PATH")


def main() -> int:
    """In the container: do the job that is named, print its result or its error as JSON."""
    if sys.argv[1] == "--end":
        _end(sys.argv[2])
        return 0
    parameters = json.loads(os.environ.pop(_PARAMETERS))
    os.umask(0o022)
    try:
        with as_interrupt():
            answer: dict[str, Any] = {"result": host_jobs.find(sys.argv[1])(parameters)}
    except ToolkitError as error:
        told = {"what": error.what, "where": error.where, "todo": error.todo}
        answer = {"error": {**told, "exit_code": error.exit_code}}
    except KeyboardInterrupt:
        return 130
    sys.stderr.flush()
    print(_ANSWER + json.dumps(answer), flush=True)
    return 0


def _end(call: str) -> None:
    """End what a call started here, and return when it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _of_call(call):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if health.wait_until(lambda: not _of_call(call), _GRACE_S, 0.1):
            return


def _of_call(call: str) -> list[int]:
    """The processes that carry a call's mark in their environment."""
    mark, found = f"{_CALL}={call}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # gone, or another user's; a zombie has no environment
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found
