"""What is said and done while an environment is changed, written down on the control host."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from hostkit.base import records as base_records
from hostkit.base.errors import ToolkitError
from hostkit.base.log import recording
from omnikit.config.layers import control_folder
from omnikit.fleet import identity
from omnikit.runs.run import Refused
from omnikit.timeline import records
from omnikit.timeline.progress import Progress, Timeline

if TYPE_CHECKING:
    from omnikit.deploy.acts import Options


@contextmanager
def recorded(environment: str, what: str, options: Options) -> Iterator[Progress]:
    """The environment locked on this machine, and all that is said and done written down.

    Three files: JSON lines, the same as text, and at the end a trace (see timeline.records). Who is
    refused by the lock leaves none, only a line in the audit file: nothing was done, and the last
    deployment is still the one before.
    """
    about = {"what": what, "owner": identity.am_i(), "steps": sorted(options.steps)}
    with identity.audited(environment, what), ExitStack() as held:
        try:
            lock = control_folder(environment) / "lock"
            held.enter_context(base_records.locked(lock, f"{what} of {environment}"))
        except ToolkitError as error:
            told = Timeline(shown=options.as_json)  # programs read how it ended from the output
            told.write("command", **about)
            told.write("failed", refused=True, **_ending(error))
            raise
        file = _new(records.folder(environment))
        timeline = Timeline(file, shown=options.as_json)
        held.enter_context(recording(file.with_suffix(".log")))
        timeline.write("command", **about)
        try:
            yield Progress(timeline=timeline)
        except BaseException as error:
            with _what_matters_is_the_error("how it ended"):
                refused = isinstance(error, Refused)
                timeline.write("failed", refused=refused, **_ending(error))
            with _what_matters_is_the_error("the error"):
                _log(file.with_suffix(".log"), error)
            raise
        finally:
            with _what_matters_is_the_error("the trace"):
                records.write_beside(file)


def _new(folder: Path) -> Path:
    """A record's file, named after the time. Made here, so that no two commands share one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 1
    while True:
        # By name, the second of a second comes after the first.
        path = folder / (f"{stamp}.jsonl" if number == 1 else f"{stamp}_{number:02}.jsonl")
        try:
            path.open("x").close()
            return path
        except FileExistsError:
            number += 1


def _ending(error: BaseException) -> dict[str, Any]:
    """What is written down about an error. What is none of ours is named by its kind."""
    if isinstance(error, ToolkitError):
        return {"error": str(error), "exit_code": error.exit_code}
    if isinstance(error, KeyboardInterrupt):
        return {"error": "interrupted", "exit_code": 130}
    return {"error": f"{type(error).__name__}: {error}".rstrip(": "), "exit_code": 1}


def _log(path: Path, error: BaseException) -> None:
    if not isinstance(error, KeyboardInterrupt):
        with path.open("a", encoding="utf-8") as log:
            log.write(f"error: {_ending(error)['error']}\n")


@contextmanager
def _what_matters_is_the_error(what: str) -> Iterator[None]:
    """A full disk, or a reader that went away, must not hide why the command itself failed."""
    try:
        yield
    except BrokenPipeError:
        pass  # it is in the file; nobody reads the output any more
    except OSError as trouble:
        print(f"warning: {what} could not be written down: {trouble}", file=sys.stderr, flush=True)
