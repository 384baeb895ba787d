"""A job in a container of this host: the same code, shipped into it and run by its Python."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.agent import jobs
from hostkit.base import health, run
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import say
from hostkit.base.run import as_interrupt
from hostkit.containers import engines
from hostkit.containers.engines import Engine
from hostkit.containers.profile import Profile, problem
from hostkit.containers.profile import words as loaded

_PARAMETERS = "OMNIKIT_JOB_PARAMETERS"
_CALL = "OMNIKIT_JOB_CALL"
_ANSWER = "omnikit-answer: "  # the line with the result: the two outputs may come mixed
_HERE = ("container", "engine", "container_python", "archive", "profile")
# Started by the container's Python with the archive and a verb: PYTHONPATH would be inherited. With
# -I, for what the container has in that variable may hide Python's own modules.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from hostkit.containers.inside import main; sys.exit(main())"
)
_OLDEST = (3, 9)
_GRACE_S = 20.0  # from SIGTERM to SIGKILL: a job ends what it has started itself
_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $PATH")
_NO_PROGRAM = 127  # a shell's exit status


def where(
    job: str, act: Callable[[dict[str, Any]], dict[str, Any]], parameters: dict[str, Any]
) -> dict[str, Any]:
    """Do a job here, or in the container that its parameters name.

    parameters: container (a name, or nothing), engine (docker, podman, auto), container_python,
    archive (the shipped code; nothing: what this runs from), profile (what the container's
    environment needs; nothing: none).
    """
    given = {key: value for key, value in parameters.items() if key not in _HERE}
    if not parameters.get("container"):
        return act(given)
    archive = Path(parameters.get("archive") or sys.argv[0]).resolve()
    engine = engines.find(parameters["engine"])
    container = parameters["container"]
    python = parameters["container_python"]
    return inside(engine, container, python, archive, job, given, parameters.get("profile"))


def inside(
    engine: Engine,
    container: str,
    python: str,
    archive: Path,
    job: str,
    parameters: dict[str, Any],
    profile: Optional[Profile] = None,
) -> dict[str, Any]:
    """Do a job in a running container. What it says goes on to standard error.

    Raises InputError when the container or its Python is not there, and what the job raises.
    """
    _check(engine, container, archive)
    check_python(
        lambda words: engine.ask("exec", container, *words, check=False),
        f"container {container}",
        python,
        profile,
    )
    # What follows needs no second look at its library.
    profile = {**profile, "library": None} if profile else None
    call = secrets.token_hex(8)  # a name that nobody could have put there before
    there = f"/tmp/omnikit-{call}.pyz"

    def start(verb: str, *more: str) -> list[str]:
        words = [python, "-I", "-c", _START, there, verb, *more]
        return [container, *loaded(profile, f"container {container}", words)]

    words = ["exec", "-e", _PARAMETERS, "-e", f"{_CALL}={call}", *start(job)]
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
        engine.ask("exec", *start("--end", call), check=False)
        raise
    finally:
        _remove(engine, container, python, there, profile)
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


def _remove(
    engine: Engine, container: str, python: str, path: str, profile: Optional[Profile]
) -> None:
    code = "import os, sys; os.unlink(sys.argv[1])"
    words = loaded(profile, f"container {container}", [python, "-I", "-c", code, path])
    # The engine has put it there as root.
    engine.ask("exec", "-u", "0", container, *words, check=False)


def _result(container: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The job's result. Raises what the job raised."""
    error = answer.get("error")
    if error is None:
        result: dict[str, Any] = answer["result"]
        return result
    kind = InputError if error["exit_code"] == InputError.exit_code else ActionError
    place = f"container {container}" + (f": {error['where']}" if error["where"] else "")
    raise kind(error["what"], where=place, todo=error["todo"])


def check_python(
    run_there: Callable[[list[str]], run.Result],
    place: str,
    python: str,
    profile: Optional[Profile],
) -> None:
    """Raise InputError when a container lacks the environment or the Python for jobs.

    run_there: runs a command in it. place: what it is called.
    """
    code = "import sys; print('python', *sys.version_info[:2])"
    done = run_there(loaded(profile, place, [python, "-I", "-c", code]))
    name, *version = [*done.out.split(), ""]
    if done.code == 0 and name == "python" and (int(version[0]), int(version[1])) >= _OLDEST:
        return
    against = problem(done)
    if against is not None:
        raise InputError(against[0], todo=against[1])
    said = done.err + done.out
    if done.code == _NO_PROGRAM or any(sign in said for sign in _NOT_FOUND):
        # Docker's and Podman's words, where the shell that loads the profile is missing.
        missing = "bash" if re.search(r"""["'`]bash["'`]:? .*not found""", said) else python
        what = f"the {place} has no {missing}."
    elif profile is not None and name != "python":
        what = f"{place}: with {profile['file']} loaded {python} does not run"
        what += f" (exit status {done.code}); the file perhaps ends or replaces its shell.\n"
        raise InputError(what + done.tail, todo="name another file: container.profile")
    else:
        what = f"{python} of the {place} is no Python 3.9 or newer:\n{done.tail}"
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
            answer: dict[str, Any] = {"result": jobs.find(sys.argv[1])(parameters)}
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
