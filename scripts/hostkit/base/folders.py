"""Folders in which no other user can put something, and in whose place no other user can put one.

Each component of a path is opened from the one before it and judged as it was opened. Standard
library only and nothing of this package: hostkit.agent.receive executes its text.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from contextlib import suppress
from typing import Any, Optional

_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_REMEDY = "What to do: name a folder below one that only root, or its user, can write"


def problem(path: str, ours: bool = True) -> str:
    """Why root, or this user, may not trust a folder, and what to do; "" where it can be trusted.

    What is not there yet is no fault: it will be made by make. ours: it and all above it belong to
    root or this user; else another user's is fine where that user did not put it there himself.
    """
    return _walk(path, ours, None)


def make(path: str, mode: Optional[int] = 0o700, ours: bool = True) -> str:
    """Make a folder where it is missing and give it its mode, unless that is None; returns
    problem's answer.

    What is made above it can be passed through (nginx's workers are not root), not listed.
    """
    fault = _walk(path, ours, 0o711)
    if not fault and mode is not None and stat.S_IMODE(os.stat(path).st_mode) != mode:  # noqa: PTH116
        os.chmod(path, mode)  # noqa: PTH101
    return fault


def remove(path: str, ours: bool = True) -> None:
    """Remove a folder and, if empty then, the one above it; one that is not surely ours is left."""
    if not problem(path, ours):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120


def fault(host: dict[str, Any]) -> str:
    """What is wrong with where a host's nodes run and write (host.json), and of which setting."""
    work_dir, run_dir = host["work_dir"], host["temp_dir"]
    places = [("work_dir", work_dir), ("run_dir", run_dir)]
    places += [("log_dir", node["log_dir"]) for node in host["nodes"]]
    for setting, path in places:
        found = problem(path, ours=setting == "run_dir" and apart(run_dir, work_dir))
        if found:
            return f"paths.{setting}: {found}"
    return ""


def apart(run_dir: str, work_dir: str) -> bool:
    """Whether a run folder is to be judged by itself: inside a work directory it is like that."""
    return not run_dir.startswith(f"{work_dir}/")


def _walk(path: str, ours: bool, made: Optional[int]) -> str:
    todo = _steps(path)
    done, links = "/", 0
    here = os.open("/", _OPEN)
    try:
        above = os.fstat(here)
        while todo:
            name = todo.pop()
            shown = os.path.join(done, name)  # noqa: PTH118
            try:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                if made is None:
                    return ""
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
                    os.chmod(name, made, dir_fd=here)
                todo.append(name)
                continue
            planted = bool(above.st_mode & 0o022) and not _trusted(found.st_uid)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if planted or (ours and not todo) or links > _MOST_LINKS:
                    return f"{shown} is a link of {_user(found.st_uid)}. {_REMEDY}"
                target = os.readlink(name, dir_fd=here)
                todo += _steps(target)
                name, done = ("/", "") if target.startswith("/") else (".", done)
            elif not stat.S_ISDIR(found.st_mode):
                return f"{shown} is no folder. What to do: remove it, or name another"
            else:
                done = shown
            inner = os.open(name, _OPEN, dir_fd=here)
            os.close(here)
            here, above = inner, os.fstat(inner)
            fault = _fault(above, ours, planted, last=not todo)
            if fault:
                return f"{done} {fault}"
    except OSError as error:
        return f"{path}: {error.strerror} ({done}). {_REMEDY}"
    finally:
        os.close(here)
    return ""


def _steps(path: str) -> list[str]:
    return [step for step in reversed(path.split("/")) if step not in ("", ".")]


def _fault(found: os.stat_result, ours: bool, planted: bool, last: bool) -> str:
    if planted or (ours and not _trusted(found.st_uid)):
        return f"belongs to {_user(found.st_uid)}. {_REMEDY}"
    sticky = bool(found.st_mode & stat.S_ISVTX) and not last
    if found.st_mode & 0o002 and not sticky:
        return f"can be written by every user. {_REMEDY}, or chmod o-w"
    if found.st_mode & 0o020 and not sticky and ours and not _alone(found.st_gid, found.st_uid):
        return f"can be written by its group. {_REMEDY}, or chmod g-w"
    return ""


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _alone(gid: int, uid: int) -> bool:
    """Whether a group is a user's own and has no other members."""
    with suppress(KeyError):
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
        return user.pw_gid == gid and not set(group.gr_mem) - {user.pw_name}
    return False


def _user(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"
