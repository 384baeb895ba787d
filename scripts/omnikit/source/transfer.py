"""The source tree on this machine, what of it is copied, and its transfer to one host by rsync: the
command, its progress, and what its failures mean.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence

from hostkit.base import command
from hostkit.base.errors import ActionError, InputError, ToolkitError
from hostkit.base.log import some
from hostkit.base.values import parsed
from hostkit.base.writing import write_private
from hostkit.copy import copy as copy_place
from hostkit.copy import tree
from hostkit.copy.tree import FILE, LINK, Excludes, Manifest
from hostkit.source import build_state, git

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


_QUICK_S = 120.0  # one question to git, on a large clone and a slow disk
_SHOWN = 3
# One of these is at the top of what can be installed.
_SIGNS = ("setup.py", "pyproject.toml", "setup.cfg", "build/build.sh", "CMakeLists.txt")
_TODO = "check paths.local_code_dir"


@dataclass(frozen=True)
class Source:
    """What is copied. revision: {"commit", "dirty", "describe"}, "vllm": the same of its clone."""

    folder: str
    files: Manifest
    digest: str
    revision: dict[str, Any]
    warnings: tuple[str, ...] = ()
    packed: str = field(default="", repr=False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files.values())

    def line(self) -> str:
        """In one line."""
        count = sum(one.kind == FILE for one in self.files.values())
        commit = self.revision["commit"]
        shown = self.revision["describe"] if commit else "no git commit"
        dirty = " with changes that are not committed" if self.revision["dirty"] else ""
        where = tree.shown(self.folder)
        return f"source {where}: {count} files, {self.size / 2**20:.1f} MiB, {shown}{dirty}"


def read(folder: str, exclude: Sequence[str], cache: Optional[Path], full: bool = False) -> Source:
    """Look at the source. cache: file of what was read before; full: read all again.

    Raises InputError when it is not there, empty or not readable.
    """
    excludes = Excludes(exclude)
    _check(folder)
    known = {} if full or cache is None else _cached(cache, folder)
    try:
        found = tree.walk(folder, excludes, known)
    except OSError as error:
        name = error.filename or folder
        shown = tree.shown(tree.text(name) if isinstance(name, bytes) else str(name))
        raise InputError(f"cannot be read: {error.strerror}.", where=shown, todo=_TODO) from error
    if not any(one.kind == FILE for one in found.files.values()):
        raise InputError("there is nothing to copy in this folder.", where=folder, todo=_TODO)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(cache, json.dumps({"folder": folder, "index": found.index}).encode())
    revision: dict[str, Any] = {"commit": None, "dirty": False, "describe": None}
    warnings = [*odd(found.files), *_others(found.others)]
    for name, place in build_state.folders(Path(folder)).items():
        if not (place / ".git").exists():
            continue
        try:
            mine, said = _revision(place, name, excludes)
        except ToolkitError as error:
            mine, said = dict(revision), [f"git says nothing about it: {error.what}"]
        warnings += said
        revision.update(mine if name == "omniinfer" else {name: mine})
    packed = tree.pack(found.files)
    made = tree.digest(found.files)
    return Source(folder, found.files, made, revision, tuple(warnings), packed)


def odd(files: Manifest) -> list[str]:
    """What a person should know about a tree before it is copied. Pure."""
    said = []
    if not any(sign in files for sign in _SIGNS):
        said.append(f"none of {', '.join(_SIGNS)} is in it: is it the source that is meant?")
    out = [
        path for path, one in sorted(files.items()) if one.kind == LINK and _leads_out(path, one)
    ]
    if out:
        said.append(f"links out of the tree, to what the hosts may not have: {_some(out)}")
    return said


def _leads_out(path: str, one: tree.Entry) -> bool:
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), one.content))
    return end.startswith("/") or end.split("/")[0] == ".."


def _others(paths: Sequence[str]) -> list[str]:
    return [f"sockets, pipes or devices stay here: {_some(paths)}"] if paths else []


def _check(folder: str) -> None:
    place = Path(folder)
    if not place.is_dir():
        what = "is a file, expected a folder" if place.exists() else "there is no such folder"
        raise InputError(f"{what}.", where=folder, todo=_TODO)
    home = str(Path("~").expanduser())
    if copy_place.real(folder) in ("/", copy_place.real(home)):
        raise InputError("this is no source tree, but everything.", where=folder, todo=_TODO)


def _cached(cache: Path, folder: str) -> tree.Index:
    try:
        found = parsed(cache.read_text())
        return dict(found["index"]) if found["folder"] == folder else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _revision(place: Path, name: str, excludes: Excludes) -> tuple[dict[str, Any], list[str]]:
    """A clone's commit, whether what is copied of it differs from that, and what is left out."""

    def ask(*words: str) -> str:
        return git.ask(place, *words, timeout_s=_QUICK_S)

    def copied(path: str) -> bool:
        ours = build_state.OURS[name]
        parts = path.rstrip("/").split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        hidden = any(excludes.match(one, one != path) for one in above)
        return not hidden and not any(one in ours for one in above)

    commit = ask("rev-parse", "HEAD").strip()
    # A renamed file's old name is an entry of its own: without --no-renames it would look like one.
    status = git.entries(ask("status", "--porcelain", "-z", "--no-renames", "-uall"))
    dirty = any(copied(entry[3:]) for entry in status)
    describe = ask("describe", "--tags", "--always", "--abbrev=12").strip()
    tracked = git.entries(ask("ls-files", "-z"))
    left = [path for path in tracked if not copied(path)]
    said = [f"files in git of {name} that sync.exclude leaves out: {_some(left)}"] if left else []
    return {"commit": commit, "dirty": dirty, "describe": describe}, said


def _some(paths: Sequence[str]) -> str:
    return some([tree.shown(path) for path in paths], _SHOWN)
