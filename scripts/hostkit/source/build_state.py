"""What the last build from source left on this host: sources, wheels, and how it ended.

The build patches vLLM's clone. So what differs in a clone after a build is written down: it is the
build's, and may be put out of the way; anything else is a person's, and is left alone.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from hostkit.base import records
from hostkit.base.log import say
from hostkit.base.writing import read_back, write_atomically
from hostkit.files import regular
from hostkit.source import clone_look, git, patch_clone, wheel_files
from hostkit.source.clone_look import CLEAN
from hostkit.source.git import VLLM

DIST = Path("build/dist")
LOG = Path("build/omnikit-build.log")
RECORD = Path("build/omnikit-build.json")
# By source: what of its folder is made by the toolkit or the build, or is another source.
OURS: dict[str, tuple[str, ...]] = {
    "omniinfer": (str(VLLM), str(DIST), str(LOG), str(RECORD)),
    "vllm": (),
}
_QUICK_S = 600.0  # one look at a large clone on a slow disk
_UNKNOWN = "unknown"
_AS = ("-c", "user.name=omnikit", "-c", "user.email=omnikit@localhost")


@dataclass(frozen=True)
class State:
    """commit: None where the source is no clone. digest: of what differs from it."""

    commit: Optional[str]
    digest: str
    changed: tuple[str, ...] = ()


def folders(code: Path) -> dict[str, Path]:
    """The sources by name."""
    return {"omniinfer": code, "vllm": code / VLLM}


def state(code: Path, name: str) -> State:
    """What a source is now."""
    folder = folders(code)[name]
    commit = clone_look.head(folder)
    if commit is None:
        return State(None, _UNKNOWN)
    there = clone_look.files(folder, OURS[name], _QUICK_S)
    return State(commit, there.digest, there.changed)


def read(code: Path) -> dict[str, Any]:
    """The record of the last build; empty when there is none, or none that can be read."""
    record = read_back(code / RECORD)
    sources, process = record.get("sources", {}), record.get("process")
    good = isinstance(sources, dict) and all(map(_is_source, sources.values()))
    good = good and (process is None or records.is_identity(process))
    return record if good and isinstance(record.get("wheels", {}), dict) else {}


def _is_source(told: Any) -> bool:
    return isinstance(told, dict) and {"commit", "before"} <= set(told)


def write(code: Path, record: dict[str, Any]) -> None:
    """Write the record of a build."""
    (code / RECORD).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(code / RECORD, json.dumps(record, indent=1) + "\n")


def left_by_build(record: dict[str, Any], name: str, now: State) -> Optional[str]:
    """Whether what differs in a source is the last build's: None, "built", or "cut off".

    built: exactly as that build left it. cut off: it was killed, the source was clean before.
    """
    then = record.get("sources", {}).get(name)
    if not then or then["before"] != CLEAN or then["commit"] != now.commit:
        return None
    if "after" in then:
        return "built" if then["after"] == now.digest else None
    return "cut off"


def ours(
    code: Path, name: str, record: dict[str, Any], now: State, patches: Optional[str]
) -> Optional[str]:
    """The same of a build or of upstream's patches, whoever applied them.

    patches: upstream's script that does.
    """
    whose = left_by_build(record, name, now)
    if (
        whose is None
        and name == "vllm"
        and now.changed
        and patch_clone.made_by_patches(code, patches)
    ):
        return "built"
    return whose


def settle(code: Path, name: str, patches: Optional[str]) -> Callable[[bool], bool]:
    """For clone_look.Wanted: what our build or the patches left may be put out of the way."""

    def act(do: bool) -> bool:
        now = state(code, name)
        whose = ours(code, name, read(code), now, patches)
        if do and now.changed and whose:
            put_back(code, name, whose)
        return whose is not None

    return act


def put_back(code: Path, name: str, whose: str) -> None:
    """Make a source clean again. After a build that was cut off, what differs is kept aside."""
    if whose != "built":
        put_aside(code, name, "left by a build that was cut off")
        return
    folder = folders(code)[name]
    _unlock(folder)
    git.ask(folder, "reset", "--quiet", "--hard", timeout_s=_QUICK_S)
    words = ["clean", "--quiet", "-d", "--force", *_all_but_ours(name)]
    git.ask(folder, *words, timeout_s=_QUICK_S)


def put_aside(code: Path, name: str, what: str) -> None:
    """Make a source clean again; what differs is kept in git's stash, under a name that says so."""
    folder = folders(code)[name]
    _unlock(folder)
    push = ["stash", "push", "--quiet", "--include-untracked", "-m", what, *_all_but_ours(name)]
    git.ask(folder, *_AS, *push, timeout_s=_QUICK_S)
    say(f"{name}: put aside what was {what}: git -C {folder} stash list")


def _unlock(folder: Path) -> None:
    """Remove the lock of a git that was killed."""
    with suppress(FileNotFoundError, NotADirectoryError):
        (folder / ".git/index.lock").unlink()


def _all_but_ours(name: str) -> list[str]:
    return ["--", ".", *(f":(exclude){path}" for path in OURS[name])]


def wheels(code: Path, packages: list[str]) -> dict[str, str]:
    """The wheels in the build's folder by file name, with their hashes."""
    found = wheel_files.find(code / DIST, packages)
    return {path.name: regular.sha256(path) for paths in found.values() for path in paths}
