"""What is said and done while an environment is changed, written down on the control host."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator

from omnikit import host_records, timeline_records, timeline_trace, who
from omnikit.deployment import control_folder
from omnikit.errors import ToolkitError
from omnikit.log import recording
from omnikit.progress import Progress
from omnikit.timeline import Timeline

if TYPE_CHECKING:
    from omnikit.deploy import Options


@contextmanager
def recorded(environment: str, what: str, options: Options) -> Iterator[Progress]:
    """The environment locked on this machine, and all that is said and done written down.

    Three files: JSON lines, the same as text, and at the end a trace (see timeline_trace).
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    file = timeline_records.folder(environment) / f"{stamp}.jsonl"
    timeline = Timeline(file, shown=options.as_json)
    with recording(file.with_suffix(".log")), who.audited(environment, what):
        timeline.write("command", what=what, owner=who.am_i(), steps=sorted(options.steps))
        try:
            lock = control_folder(environment) / "lock"
            with host_records.locked(lock, f"{what} of {environment}"):
                yield Progress(timeline=timeline)
        except ToolkitError as error:
            timeline.write("failed", error=str(error), exit_code=error.exit_code)
            with file.with_suffix(".log").open("a", encoding="utf-8") as log:
                log.write(f"error: {error}\n")
            raise
        except KeyboardInterrupt:
            timeline.write("failed", error="interrupted", exit_code=130)
            raise
        finally:
            timeline_trace.write_beside(file)
