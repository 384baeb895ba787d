"""The source tree on this machine: what of it is copied, its revision, and what is odd in it."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Sequence

from hostkit.base.errors import InputError, ToolkitError
from hostkit.base.writing import write_private
from hostkit.copy import place as copy_place
from hostkit.copy import tree
from hostkit.copy.tree import FILE, LINK, Excludes, Manifest
from hostkit.source import build_state, git

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
        found = json.loads(cache.read_text())
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
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(tree.shown(path) for path in paths[:_SHOWN]) + more
