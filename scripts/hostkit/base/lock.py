"""Who is changing this host, and who did: a lock that outlives its holder, and an audit file.

The lock keeps two commands apart, of one person or of two machines. It names its owner, its age and
the run that took it, and goes by that run's hand, by the next one's when that run is dead, or
deliberately (invoke unlock). What changes a host looks first whether its run still holds the lock,
under the flock on host.lock: so what a killed command left running changes nothing any more.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Mapping, Optional

from hostkit.base.errors import ActionError, InputError
from hostkit.base.log import say
from hostkit.base.records import alive, boot_id, identity, locked
from hostkit.base.writing import private_folder, write_atomically, write_private

LOCK, AUDIT, FLOCK = "deploy.lock", "audit.jsonl", "host.lock"
# The archive of the present deployment, and of the last one that was proved.
INCOMING, GOOD = "archives/incoming.pyz", "archives/good.pyz"
RUN = "OMNIKIT_RUN"  # tells an agent on whose behalf it works
Lock = dict[str, Any]
_UNKNOWN = {"owner": "unknown", "what": "unknown", "since": 0, "run": ""}
_LARGEST = 1 << 16


def new_run() -> str:
    """What tells a command from any other: the process that it is, and a number."""
    me = identity(os.getpid())
    parts = (me["boot_id"], me["pid_ns"], me["pid"], me["start_ticks"], secrets.token_hex(8))
    return "/".join(map(str, parts))


def has_ended(run: str) -> bool:
    """Whether a run is known to be dead. Only its own machine and pid namespace can tell."""
    try:
        boot, pid_ns, pid, ticks, _ = run.split("/")
        process = {"boot_id": boot, "pid_ns": pid_ns, "pid": int(pid), "start_ticks": int(ticks)}
    except ValueError:
        return False
    mine = identity(os.getpid())
    return (boot, pid_ns) == (boot_id(), mine["pid_ns"]) and not alive(process)


def holder(work_dir: Path) -> Optional[Lock]:
    """Who holds the lock: {"owner", "what", "since", "run"}; None when nobody does. What is there
    in another shape is a lock too, of somebody unknown.
    """
    path = work_dir / LOCK
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return dict(_UNKNOWN)
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError):
        return dict(_UNKNOWN)
    if not isinstance(found, dict):
        return dict(_UNKNOWN)
    made = {name: found.get(name, "") for name in ("owner", "what", "run")}
    made = {name: text if isinstance(text, str) else "unknown" for name, text in made.items()}
    since = found.get("since")
    right = isinstance(since, (int, float)) and 0 <= since < 1 << 40
    return {**made, "owner": made["owner"] or "unknown", "since": since if right else 0}


def take(
    work_dir: Path,
    owner: str,
    what: str,
    run: str = "",
    over: Optional[Mapping[str, bool]] = None,
    wait_s: float = 0.0,
) -> None:
    """Take the lock, also again. Raises InputError that names another holder and the lock's age.

    over: runs that are dead, and whether each was proved: what they began here is finished. A run
    of the same owner that is seen to be dead here needs no entry.
    """
    over = over or {}
    work_dir.mkdir(parents=True, exist_ok=True)
    with locked(work_dir / FLOCK, what, wait_s):
        other = holder(work_dir)
        if other is not None and (not run or other["run"] != run):
            mine = other["owner"] == owner and (not other["run"] or has_ended(other["run"]))
            if other["run"] not in over and not mine:
                raise _held(work_dir, other)
            if other["run"]:
                say(f"the lock of a {other['what']} that was cut off is taken over")
            proved = over.get(other["run"], False)
            _end(work_dir, other, "ok" if proved else "interrupted", proved)
        if owner:
            mine_now = {"owner": owner, "what": what, "since": time.time(), "run": run}
            write_atomically(work_dir / LOCK, json.dumps(mine_now) + "\n")


def _held(work_dir: Path, other: Lock) -> InputError:
    return InputError(
        f"{other['owner']} is changing this host: {other['what']},"
        f" since {age(other)}; it is left alone.",
        where=str(work_dir / LOCK),
        todo="wait for it; if that command is no more: invoke unlock",
    )


def check(work_dir: Path, run: str) -> None:
    """Raise InputError when the lock is another's, ActionError when it is this run's no more.

    run "": by hand, or by Ansible alone. Call it with the flock held.
    """
    other = holder(work_dir)
    if run and (other is None or other["run"] != run):
        now = f"{other['owner']} holds it: {other['what']}" if other else "nobody holds it"
        raise ActionError(
            f"this command does not hold the host's lock any more: {now}. Nothing was done.",
            where=str(work_dir / LOCK),
            todo="look what runs (invoke status), then run the command again",
        )
    if not run and other is not None:
        raise _held(work_dir, other)


def release(work_dir: Path, run: Optional[str] = None) -> Optional[Lock]:
    """Give the lock up if run holds it, or whoever does; returns what was given up."""
    other = holder(work_dir)
    if other is None or (run is not None and other["run"] != run):
        return None
    path = work_dir / LOCK
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return other


def _end(work_dir: Path, lock: Lock, result: Optional[str], keep: bool) -> None:
    """The end of a run on this host: its archive kept as good, a line in the audit, no lock."""
    if keep and (work_dir / INCOMING).is_file():
        copy(work_dir / INCOMING, work_dir / GOOD)
    if result is not None:
        audit(work_dir, lock["owner"], lock["what"], result)
    release(work_dir, lock["run"])


def copy(source: Path, target: Path) -> None:
    """An archive appears whole; it may hold secrets."""
    try:
        private_folder(target.parent)
        write_private(target, source.read_bytes())
    except OSError as error:
        raise ActionError(f"cannot be written: {error.strerror}.", where=str(target)) from error


def age(lock: Lock) -> str:
    """How long a lock has been held, for a person."""
    seconds = max(0, int(time.time() - lock["since"]))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def audit(work_dir: Path, owner: str, what: str, result: str) -> None:
    """Append a line on who did what to this host, when, and how it ended."""
    line = json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "owner": owner,
            "what": what,
            "result": result,
        }
    )
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with (work_dir / AUDIT).open("a") as file:
            file.write(line + "\n")
    except OSError as error:
        say(f"{work_dir / AUDIT} cannot be written: {error.strerror}; it would say: {line}")


def changes(work_dir: Path) -> int:
    """Grows with every change of this host that ended: who looked before one looks again."""
    try:
        return (work_dir / AUDIT).stat().st_size
    except OSError:
        return 0


def place(work_dir: Path) -> str:
    """The same for everybody who calls this host and folder by whatever name: locks of several
    hosts are taken in this order, so that of two commands at least one gets all of its own.
    """
    return f"{boot_id()} {os.uname().nodename} {os.path.realpath(work_dir)}"


def is_ours(work_dir: Path) -> bool:
    """Whether a folder has what only a deployment writes."""
    signs = ("bundle/host.json", "jobs/host.pyz", "archives", "incoming.pyz", "good.pyz")
    return any((work_dir / name).exists() for name in signs)


def about(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "lock-look". parameters: {"work_dir"}. ours: whether a deployment made that folder;
    started: whether anything was ever started from it.
    """
    work_dir = Path(parameters["work_dir"])
    there = {"ours": is_ours(work_dir), "started": (work_dir / "state").is_dir()}
    return {"changed": False, "place": place(work_dir), **there}


def lock(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "lock". parameters: {"work_dir", "wait_s", "owner", "what", "run", "over"}; archive:
    what becomes the present deployment with that; changes: as it was seen; frees: a full disk does
    not matter, since who locks it makes room. held: whether it is locked now.

    Raises InputError, also when the host was changed since it was looked at.
    """
    work_dir = Path(parameters["work_dir"])
    seen = parameters.get("changes")
    if seen is not None and changes(work_dir) != seen:
        raise InputError(
            "this host was changed after it was looked at; nothing was done.",
            where=str(work_dir / AUDIT),
            todo="see who did what there, then run the command again",
        )
    names = ("owner", "what", "run", "over", "wait_s")
    try:
        take(work_dir, **{name: parameters[name] for name in names})
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not parameters.get("frees"):
            raise
        say(f"{work_dir}: the disk is full, the host cannot be locked")
        return {"changed": False, "held": False}
    if parameters.get("archive"):
        copy(Path(parameters["archive"]), work_dir / INCOMING)
    return {"changed": True, "held": True}


def finish(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job "finish". parameters: {"work_dir", "wait_s", "run", "keep": the archive is good,
    "result": for the audit; None: no line}. held: whether the run still had the lock.
    """
    work_dir = Path(parameters["work_dir"])
    if holder(work_dir) is None:
        return {"changed": False, "held": False}
    with locked(work_dir / FLOCK, "finish", parameters["wait_s"]):
        other = holder(work_dir)
        held = other is not None and other["run"] == parameters["run"]
        if other is not None and held:
            _end(work_dir, other, parameters["result"], parameters["keep"])
    return {"changed": held, "held": held}


def unlock(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job: break the lock, whoever holds it.

    parameters: {"work_dir", "owner": who asks, "dry_run": only say whose it is}.
    """
    work_dir = Path(parameters["work_dir"])
    if parameters.get("dry_run"):
        return {"changed": False, "lock": holder(work_dir)}
    broken = release(work_dir)
    if broken is not None:
        audit(work_dir, parameters["owner"], f"broke the lock of {broken['owner']}", "ok")
    return {"changed": broken is not None, "lock": broken}
