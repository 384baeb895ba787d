"""Start and reload one nginx proxy of our own, known by its record and by nothing else.

The master runs in a session of its own; RUN_DIR/launch.json says which process it is.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from omnikit import host_ports, proxy, run
from omnikit.errors import ActionError, InputError
from omnikit.health import wait_until
from omnikit.host_pids import session_members
from omnikit.host_records import (
    Record,
    alive,
    identity,
    survivors,
    write_atomically,
)
from omnikit.log import say
from omnikit.proxy_files import Wanted
from omnikit.proxy_record import INTERVAL_S, RECORD, answers, end, is_leaving, read_record

_OUTPUT = "nginx.out"


def digest(wanted: Wanted, run_dir: Path) -> str:
    """Changes with the proxy's files and its command."""
    words = proxy.command(wanted.spec(run_dir))
    text = json.dumps([wanted.kind, words, sorted(wanted.files.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def look(wanted: Wanted, run_dir: Path) -> str:
    """What up would do: start, reload or unchanged. Changes nothing.

    Raises InputError when the port is taken or the running proxy cannot become the wanted one.
    """
    record = read_record(run_dir)
    running = record if record and alive(record["process"]) else None
    if running and running["command"] != proxy.command(wanted.spec(run_dir)):
        raise InputError(
            f"the proxy that runs (pid {running['process']['pid']}) is {running['command'][0]}.",
            where="--nginx",
            todo=f"stop it first: launch_proxy.py --stop --run-dir {run_dir}",
        )
    if running and running["digest"] == digest(wanted, run_dir):
        return "unchanged"
    if running is None or (running["host"], running["port"]) != (wanted.host, wanted.port):
        _refuse_taken_port(wanted, survivors(record["process"]) if record else [])
    return "reload" if running else "start"


def _refuse_taken_port(wanted: Wanted, ours: list[int]) -> None:
    if host_ports.is_taken(wanted.host.strip("[]"), wanted.port):
        owner = host_ports.owner(wanted.port)
        if not any(f"pid {pid} " in owner for pid in ours):
            raise InputError(
                f"port {wanted.port} is taken by {owner}.",
                where="--listen-port",
                todo="end that process, or give another port",
            )


def up(wanted: Wanted, run_dir: Path, deadline_s: float, *, reload: bool = False) -> str:
    """Bring the proxy to what is wanted: started, reloaded or unchanged.

    reload: only change a running proxy, and reload it even if nothing changed.
    """
    action = look(wanted, run_dir)
    if reload and action == "start":
        raise InputError(
            "there is no running proxy to reload.",
            where=str(run_dir),
            todo="leave --reload out to start it",
        )
    if action == "unchanged" and not reload:
        return action
    run_dir.mkdir(parents=True, exist_ok=True)
    wanted.error_log.parent.mkdir(parents=True, exist_ok=True)
    check(wanted, run_dir, deadline_s)
    if action == "start":
        _start(wanted, run_dir, deadline_s)
        return "started"
    _reload(wanted, run_dir, deadline_s)
    return "reloaded"


def check(wanted: Wanted, run_dir: Path, timeout_s: float) -> None:
    """nginx's own look at the files, aside of those in use. Raises InputError with its words."""
    aside = Path(tempfile.mkdtemp(prefix="check.", dir=run_dir))
    try:
        _write(wanted, aside)
        words = proxy.check_command(wanted.spec(aside)) or []
        done = run.run(words, check=False, timeout=timeout_s)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if done.code != 0:
        raise InputError(
            f"nginx does not accept the configuration:\n{done.tail}",
            where=words[0],
            todo="mend what it names; nothing was changed",
        )


def _write(wanted: Wanted, folder: Path) -> None:
    for name, text in wanted.files.items():
        write_atomically(folder / name, text)


def _save(wanted: Wanted, run_dir: Path, process: Record) -> None:
    record = {
        "process": process,
        "kind": wanted.kind,
        "command": proxy.command(wanted.spec(run_dir)),
        "digest": digest(wanted, run_dir),
        "host": wanted.host,
        "port": wanted.port,
        "error_log": str(wanted.error_log),
        "health_url": wanted.health_url,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    write_atomically(run_dir / RECORD, json.dumps(record, indent=1) + "\n")


def _start(wanted: Wanted, run_dir: Path, deadline_s: float) -> None:
    left = read_record(run_dir)
    if left is not None and survivors(left["process"]):
        say("ending workers that a dead master left")
        end(left, deadline_s, deadline_s)
    _write(wanted, run_dir)
    output = run_dir / _OUTPUT
    with output.open("wb") as file:
        child = run.start(proxy.command(wanted.spec(run_dir)), output=file, cwd=run_dir)
    ready = False
    try:
        _save(wanted, run_dir, identity(child.pid))
        done = wait_until(
            lambda: child.poll() is not None or answers(wanted.health_url, deadline_s),
            deadline_s,
            INTERVAL_S,
        )
        ready = done and child.poll() is None
    finally:
        if not ready:  # also on Ctrl-C: nothing half started stays
            run.end_group(child.pid, signal.SIGKILL)
            child.wait()
            (run_dir / RECORD).unlink(missing_ok=True)
    if not ready:
        said = _tail(output, 0) or _tail(wanted.error_log, 0) or "it said nothing"
        raise ActionError(f"nginx did not start:\n{said}", where=str(wanted.error_log))


def _reload(wanted: Wanted, run_dir: Path, deadline_s: float) -> None:
    record = read_record(run_dir)
    assert record is not None  # look() saw it, and we hold the lock
    master = int(record["process"]["pid"])
    before = set(session_members(master)) - {master}
    old = {name: (run_dir / name).read_text(encoding="utf-8") for name in _present(wanted, run_dir)}
    logs = {path: _size(path) for path in (Path(record["error_log"]), run_dir / _OUTPUT)}
    _write(wanted, run_dir)
    os.kill(master, signal.SIGHUP)

    def refused() -> str:
        new = "\n".join(_tail(path, start) for path, start in logs.items())
        return "\n".join(line for line in new.splitlines() if "[emerg]" in line)

    def taken_over() -> bool:
        now = set(session_members(master)) - {master}
        return bool(now - before) and all(is_leaving(pid) for pid in now & before)

    def failed() -> bool:
        return bool(refused()) or not alive(record["process"])

    done = wait_until(lambda: failed() or taken_over(), deadline_s, INTERVAL_S)
    if failed() or not done:
        for name, text in old.items():
            write_atomically(run_dir / name, text)
        goes_on = "goes on with the old one" if alive(record["process"]) else "has ended"
        raise ActionError(
            f"nginx did not take the new configuration over and {goes_on}:\n"
            + (refused() or f"not all workers changed within {deadline_s:g} s"),
            where=record["error_log"],
        )
    _save(wanted, run_dir, record["process"])


def _present(wanted: Wanted, run_dir: Path) -> list[str]:
    return [name for name in wanted.files if (run_dir / name).is_file()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, start: int) -> str:
    """The last lines of a log from a place on."""
    try:
        text = path.read_bytes()[start:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-8:])
