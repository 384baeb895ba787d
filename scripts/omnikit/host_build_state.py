"""What the last build from source left on this host: sources, wheels, and how it ended.

The build patches vLLM's clone. So what differs in a clone after a build is written down: it is the
build's, and may be put out of the way; anything else is a person's, and is left alone.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from omnikit import host_clone_look, host_git, host_wheels
from omnikit.host_clone_look import CLEAN
from omnikit.host_records import write_atomically
from omnikit.log import say

VLLM = Path("infer_engines/vllm")
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
    commit = host_clone_look.head(folder)
    if commit is None:
        return State(None, _UNKNOWN)
    there = host_clone_look.files(folder, OURS[name], _QUICK_S)
    return State(commit, there.digest, there.changed)


def read(code: Path) -> dict[str, Any]:
    """The record of the last build; empty when there is none, or none that can be read."""
    try:
        record: dict[str, Any] = json.loads((code / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record


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


def settle(code: Path, name: str) -> Callable[[bool], bool]:
    """For host_clone_look.Wanted: what our build left may be put out of the way."""

    def act(do: bool) -> bool:
        now = state(code, name)
        whose = left_by_build(read(code), name, now)
        if do and now.changed and whose:
            put_back(code, name, whose)
        return whose is not None

    return act


def put_back(code: Path, name: str, whose: str) -> None:
    """Make a source clean again. After a build that was cut off, what differs is kept aside."""
    folder = folders(code)[name]
    rest = ["--", ".", *(f":(exclude){path}" for path in OURS[name])]
    (folder / ".git/index.lock").unlink(missing_ok=True)  # of a git that was killed
    if whose == "built":
        host_git.ask(folder, "reset", "--quiet", "--hard", timeout_s=_QUICK_S)
        host_git.ask(folder, "clean", "--quiet", "-d", "--force", *rest, timeout_s=_QUICK_S)
        return
    text = "left by a build that was cut off"
    push = ["stash", "push", "--quiet", "--include-untracked", "-m", text, *rest]
    host_git.ask(folder, *_AS, *push, timeout_s=_QUICK_S)
    say(f"{name}: what a build that was cut off left is put aside: git -C {folder} stash list")


def wheels(code: Path, packages: list[str]) -> dict[str, str]:
    """The wheels in the build's folder by file name, with their hashes."""
    found = host_wheels.find(code / DIST, packages)
    return {path.name: host_wheels.sha256(path) for paths in found.values() for path in paths}
