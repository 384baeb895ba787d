"""What happened to the nodes of this host: one line of JSON for each change of a state.

Supervisors and reloads append to one file, which stays small: when it is full it becomes the older
of two. A disk that takes nothing harms nobody: what could not be written waits, a while and in
order, and no half line stays. Read back with what the audit file says of commands.
Who wants to be told at once, a command or a webhook (setting hooks), is told by a process of its
own for each event, with bounded time: this module, run by its name. What fails there is an event.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

from hostkit.base import lock, run
from hostkit.base.errors import ToolkitError
from hostkit.base.health import request, wait_until
from hostkit.base.writing import read_back, write_atomically
from hostkit.nodes import log_writer

FILE = "state/history.jsonl"
HOOKS = "hooks.json"  # below bundle/, for one user: addresses of webhooks are often secrets
_EVENT = "OMNIKIT_EVENT"  # holds the event, and begins the names of what a command is told
_FULL = 4 << 20  # bytes of one file, some 15,000 lines
_WAITING = 200  # lines that wait for a disk at the most; the oldest are lost
_LOCK_S = 1  # a writer that stands still holds the others up for no longer
_FAILED = "hook-failed"
_READ = 8 << 20  # bytes that are read of a file, from its end
Event = dict[str, Any]
# What happened, and the state that a node is in then.
_STATES = {
    **{"started": "starting", "restarted": "starting", "died": "waiting", "ready": "ready"},
    **{"failed": "failed", "crash-loop": "crash-loop", "stopped": "stopped"},
}


class Teller:
    """Tells of one node. host: host.json's data; node: one entry of its nodes."""

    def __init__(self, host: Mapping[str, Any], node: Mapping[str, Any]) -> None:
        self.work_dir = Path(host["work_dir"])
        self.about = {key: host.get(key) for key in ("environment", "host")}
        self.about.update(node=node["name"], role=node["role"])
        self.waiting: deque[str] = deque(maxlen=_WAITING)
        self.hooks: dict[int, subprocess.Popen[bytes]] = {}
        self.restarts = 0

    def tell(self, what: str, why: Optional[str] = None, **more: Any) -> None:
        """Say what the node is now, or was done to it: started, ready, died, failed …"""
        event = {"time": stamp(time.time()), **self.about, "what": what, "why": why, **more}
        self.waiting.append(json.dumps(event))
        self.flush()
        if what in _STATES:
            self._expose(what)
        settings = self.work_dir / "bundle" / HOOKS
        if what != _FAILED and settings.is_file():
            with suppress(ToolkitError, OSError):
                child = run.start(
                    [sys.executable, "-S", "-m", __name__, str(settings)],
                    output=subprocess.DEVNULL,
                    env={_EVENT: json.dumps(event), "PYTHONPATH": _code()},
                )
                self.hooks[child.pid] = child

    def _expose(self, what: str) -> None:
        """The state as Prometheus' node_exporter reads it (its textfile collector)."""
        self.restarts += what == "restarted"
        names = ("environment", "node", "role")  # the host is known to who reads it
        labels = ",".join(f'{name}="{self.about[name]}"' for name in names)
        lines = ["# TYPE omnikit_instance_state gauge"]
        for state in dict.fromkeys(_STATES.values()):
            is_it = int(_STATES[what] == state)
            lines.append(f'omnikit_instance_state{{{labels},state="{state}"}} {is_it}')
        lines.append("# TYPE omnikit_instance_restarts_total counter")
        lines.append(f"omnikit_instance_restarts_total{{{labels}}} {self.restarts}")
        path = self.work_dir / "state" / f"{self.about['node']}.prom"
        with suppress(OSError):
            write_atomically(path, "\n".join(lines) + "\n")

    def flush(self) -> None:
        """Write what waits, as far as the disk takes it."""
        with suppress(OSError):
            while self.waiting:
                _append(self.work_dir / FILE, self.waiting[0].encode() + b"\n")
                self.waiting.popleft()


def _code() -> str:
    """The folder or archive that this code runs from."""
    return str(Path(run.__file__).parents[2])


def stamp(at: float) -> str:
    """A time as lines have it, to the millisecond, in UTC: as texts they are in order."""
    thousandths = int(at * 1000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(thousandths // 1000))
    return f"{text}.{thousandths % 1000:03d}Z"


def _append(path: Path, line: bytes) -> None:
    """Add a line, all of it or nothing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(path, flags, 0o644)
        try:
            ours = wait_until(partial(_locked, file), _LOCK_S, 0.01)
            here = os.fstat(file)
            if ours and here.st_size and here.st_size + len(line) > _FULL:
                with suppress(FileNotFoundError):  # another one was faster
                    if os.path.samestat(here, path.stat()):
                        log_writer.put_aside(path, 2)
                continue
            # A process that was killed, or a disk that was full, may have left half a line.
            if here.st_size and os.pread(file, 1, here.st_size - 1) != b"\n":
                line = b"\n" + line
            if os.write(file, line) < len(line):
                if ours:
                    os.ftruncate(file, here.st_size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return
        finally:
            os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "history". parameters: {"work_dir", "since_s": only of so many last seconds, by this
    host's clock; None: all, "most": only so many, the last ones}.

    Returns {"events", oldest first, "left_out": how many more there are}. An event has time and
    what; of a node also environment, host, node, role and why; of a command by and result.
    """
    work_dir = Path(parameters["work_dir"])
    own = work_dir / FILE
    found = [*_lines(own.with_name(own.name + ".1")), *_lines(own)]
    for line in _lines(work_dir / lock.AUDIT):
        if isinstance(line.get("owner"), str):
            line["by"] = line.pop("owner")
            found.append(line)
    since_s = parameters.get("since_s")
    if since_s is not None:
        since = stamp(time.time() - since_s)
        found = [event for event in found if event["time"] >= since]
    found.sort(key=lambda event: event["time"])
    kept = found[-int(parameters["most"]) :]
    return {"changed": False, "events": kept, "left_out": len(found) - len(kept)}


def _lines(path: Path) -> Iterator[Event]:
    """What can be read of the end of such a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _READ))
            data = file.read(_READ)
    except OSError:
        return
    for line in data.splitlines():
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and all(
                isinstance(event.get(key), str) for key in ("time", "what")
            ):
                yield event


def main(settings: Path) -> None:
    """Tell of the event in the environment, as the settings in this file say."""
    text = os.environ.pop(_EVENT)
    del os.environ["PYTHONPATH"]  # of this process, none of the command's business
    event, hooks = json.loads(text), read_back(settings)
    faults = []
    if hooks.get("command"):
        faults.append(_called(hooks["command"], text, event, hooks["timeout_s"]))
    if hooks.get("webhook"):
        faults.append(_posted(hooks, event))
    host = {**event, "work_dir": settings.parents[1]}
    teller = Teller(host, {"name": event["node"], "role": event["role"]})
    for fault in filter(None, faults):
        teller.tell(_FAILED, f"of {event['what']}, {event['time']}: {fault}")


def _called(words: list[str], text: str, event: Event, timeout_s: float) -> Optional[str]:
    """Have the user's command told; what went wrong."""
    told = {f"{_EVENT}_{key.upper()}": value for key, value in event.items()}
    file = os.memfd_create("event")
    try:
        os.write(file, text.encode())
        child = run.start(
            words,
            output=subprocess.DEVNULL,
            env={name: value for name, value in told.items() if isinstance(value, str)},
            tied=True,
            stdin=Path(f"/proc/self/fd/{file}"),
        )
    except (ToolkitError, OSError) as error:
        return f"the command: {error}"
    finally:
        os.close(file)
    if not wait_until(lambda: child.poll() is not None, timeout_s, 0.02):
        run.end_group(child.pid, signal.SIGKILL)
        return f"the command {words[0]} was ended after {timeout_s:g} s"
    status = child.poll()
    return f"the command {words[0]} ended with exit status {status}" if status else None


def _posted(hooks: Mapping[str, Any], event: Event) -> Optional[str]:
    """Send the event to the webhook; what went wrong, without the address."""
    key = hooks.get("authorization")
    answer = request(
        hooks["webhook"],
        timeout_s=hooks["timeout_s"],
        body=event,
        headers={"Authorization": key} if key else None,
    )
    if 200 <= answer.status < 300:
        return None
    said = answer.text.replace(hooks["webhook"], "its address")
    return f"the webhook answers {answer.status}" if answer.status else f"the webhook: {said}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
