"""Files to one host by rsync: its command, its progress, and what its failures mean."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import command
from hostkit.base.errors import ActionError, InputError
from hostkit.copy import tree

_SENT = re.compile(r"^Total bytes sent: (\d+)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\#([0-7]{3})")
_SPACE = ("no space left on device", "disk quota exceeded")
_CUT = (
    *("connection unexpectedly closed", "connection reset", "broken pipe", "timeout in data"),
    *("lost connection", "connection closed by", "client_loop", "error in rsync protocol data"),
    "unexplained error (code 255)",
)
_VANISHED = 24  # rsync's exit status when files of the source went away meanwhile
_TAIL = 65536


@dataclass(frozen=True)
class Transfer:
    """What goes where. words: how ssh is called, () where the destination is on this machine."""

    source: str
    target: str
    address: str
    words: tuple[str, ...]
    env: Mapping[str, str]
    stall_s: float


def argv(transfer: Transfer, listed: Path, together: bool = True) -> list[str]:
    """The command that brings the files listed, whatever their sizes and times are there.

    together: they take their places at its end, not one by one. What a cut leaves is used by the
    next run. Owners are those who log in there, and set-user-id bits stay here: a developer's file
    is none of root's there.
    """
    made = ["rsync", "--links", "--perms", "--times", "--omit-dir-times", "--omit-link-times"]
    made += ["--ignore-times", "--protect-args", "--chmod=ug-s"]
    made += ["--delay-updates" if together else f"--partial-dir={tree.UNFINISHED}"]
    made += ["--from0", f"--files-from={listed}", "--stats", "--no-human-readable"]
    made += ["--out-format=%n", f"--timeout={round(transfer.stall_s)}"]
    where = f"{transfer.target.rstrip('/')}/"
    if transfer.words:
        made += ["-e", rsh(transfer.words)]
        where = f"{bracketed(transfer.address)}:{where}"
    return [*made, "--", f"{transfer.source.rstrip('/')}/", where]


def rsh(words: Sequence[str]) -> str:
    """Words as rsync takes them apart: in single quotes, one that is in them doubled."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in words)


def bracketed(address: str) -> str:
    """USER@ADDRESS for rsync: an IPv6 address in brackets."""
    user, at, host = address.rpartition("@")
    return f"{user}{at}[{host}]" if ":" in host else address


def send(
    transfer: Transfer,
    paths: Sequence[str],
    host: str,
    folder: Path,
    on_start: Optional[Callable[[int], None]] = None,
    *,
    together: bool = True,
) -> int:
    """Bring these files there; bytes that were sent. folder: for the list and the log.

    Raises ActionError or InputError.
    """
    if not paths:
        return 0
    need_here()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    listed, log = folder / f"sync-{host}.list", folder / f"sync-{host}.log"
    # With ./ before it, no name looks like a comment to rsync (#, ;).
    listed.write_bytes(b"".join(b"./" + tree.raw(path) + b"\0" for path in paths))
    try:
        env = {**transfer.env, "LC_ALL": "C"}
        ended = command.watch(
            argv(transfer, listed, together),
            f"host {host}",
            log=log,
            env=env,
            hide=readable,
            on_start=on_start,
        )
    finally:
        listed.unlink(missing_ok=True)
    if ended.code != 0:
        raise fault(ended.code, ended.said, transfer)
    found = _SENT.search(ended.said)
    return int(found[1]) if found else 0


def need_here() -> None:
    """Raise InputError when this machine has no rsync."""
    if shutil.which("rsync") is None:
        raise InputError(
            "rsync is not installed on this machine.",
            todo="install it (openEuler: dnf install rsync; Debian, Ubuntu: apt-get install rsync)",
        )


def fault(code: int, said: str, transfer: Transfer) -> ActionError:
    """What it means that rsync failed."""
    text = said.lower()
    lines = [
        line
        for line in said.splitlines()
        if line.startswith(("rsync: ", "rsync error: ", "@ERROR"))
    ]
    first = lines[0] if lines else (said.strip().splitlines() or ["rsync said nothing"])[-1]
    first = readable(first)[:300]
    where = tree.shown(transfer.target)
    again = "sync again: it goes on where this one ended"
    if any(sign in text for sign in _SPACE):
        return ActionError(
            f"the disk is full: {first}",
            where=where,
            todo=f"make room (df -h {where}), then {again}",
        )
    if "rsync: command not found" in text or "rsync: not found" in text or code == 127:
        return ActionError(
            "rsync is not found on the host.",
            where=where,
            todo="install it there (openEuler: dnf install rsync; Debian, Ubuntu: apt-get install"
            " rsync)",
        )
    if "permission denied" in text and code == 23:
        return ActionError(
            f"files may not be written there: {first}",
            where=where,
            todo=f"look at the owner: ls -ld {where}; log in as that user (hosts.NAME.user)",
        )
    if code == _VANISHED:
        return ActionError(
            "files of the source went away during the transfer.", where=transfer.source, todo=again
        )
    if code in (10, 12, 20, 30, 35, 255) or code < 0 or any(sign in text for sign in _CUT):
        return ActionError(
            f"the transfer was cut: {first}",
            where=where,
            todo=again + "; nothing half-written is used",
        )
    return ActionError(f"rsync failed with status {code}: {first}", where=where, todo=again)


def readable(line: str) -> str:
    """Lines of rsync with its escapes undone, fit for a terminal."""
    if "\n" in line:
        return "\n".join(readable(one) for one in line.split("\n"))
    parts = _ESCAPE.split(line)
    data = b"".join(
        bytes([int(part, 8) & 0xFF]) if number % 2 else part.encode("utf-8", "surrogateescape")
        for number, part in enumerate(parts)
    )
    return tree.shown(tree.text(data))


def summary(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a host's answer to code-begin says, counted."""
    touched = [*changes["create"], *changes["update"], *changes["mode"], *changes["delete"]]
    return {
        "created": len(changes["create"]),
        "updated": len(changes["update"]) + len(changes["mode"]),
        "deleted": len(changes["delete"]),
        "files": sorted(touched)[:20],
    }
