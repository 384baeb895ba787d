"""vLLM's clone in omni-infer's source brought to what upstream's own step makes of it.

That is: the clone clean, then upstream's script, which checks out vLLM's version and applies its
patches. A mark in the clone says that this is under way, so what a killed run left is known.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hostkit.base import run
from hostkit.base.command import watch
from hostkit.base.errors import ActionError, InputError
from hostkit.source import build_run, build_state, clone_look, git, patch_clone
from hostkit.source.patch_clone import PATCHING, Look, look
from hostkit.source.patch_state import State
from hostkit.source.source_jobs import alone

CHANGED = ("patched", "mended")  # actions that have changed something
NONE: dict[str, Any] = {"action": "none", "patches": 0, "edits": [], "line": ""}
_CHECKOUT_S = 1800.0  # writing the files of a large source to a slow disk
_CAUSES = (
    (
        r"error: pathspec '([^']+)'",
        "the clone does not have the version that the script checks out",
        "git -C {vllm} fetch --depth=1 origin tag {found}",
    ),
    (
        r"error: patch failed|patch does not apply",
        "a patch does not fit this version of vLLM",
        "check out omni-infer and vLLM of one release (source.omniinfer_ref, source.vllm_ref)",
    ),
)


def ensure(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have upstream's patches in a source's vLLM; for parameters see clone.look.

    Returns action (none, unchanged, patched, mended: what a killed run left), patches (how many),
    edits (somebody's own work that is there besides). Raises InputError before anything is changed.
    """
    code, seen = Path(parameters["dir"]), look(parameters)
    if seen.lacks or seen.cut:
        with alone(code):
            seen = look(parameters)
            if seen.lacks:
                _patch(code, parameters["patches"], seen)
            elif seen.cut:
                _mark(seen.vllm, False)
    return result(seen)


def result(seen: Look) -> dict[str, Any]:
    """What is made of a vLLM that was found so."""
    if seen.state is None:
        return NONE
    action = "unchanged" if not seen.lacks else "mended" if seen.cut else "patched"
    kept = [] if seen.lacks else list(seen.edits)
    made = {"action": action, "patches": len(seen.state.names), "edits": kept}
    return {**made, "line": line(made)}


def line(made: dict[str, Any]) -> str:
    """A result in one line."""
    said = {
        "unchanged": "has its {n} patches",
        "patched": "patched: {n} patches",
        "mended": "patched: {n} patches, after a run that was cut off",
    }[made["action"]].format(n=made["patches"])
    kept = f"; {len(made['edits'])} files with changes of your own" if made["edits"] else ""
    return f"vllm {said}{kept}"


def _patch(code: Path, script: str, seen: Look) -> None:
    vllm = seen.vllm
    git.program(_CHECKOUT_S)
    if clone_look.read_mark(vllm).get("state") in (
        clone_look.NEW,
        clone_look.MOVING,
    ):
        raise InputError(
            "the source of vllm is half fetched.",
            where=str(vllm),
            todo="end that first: scripts/build_from_source.sh --only fetch",
        )
    if seen.edits:
        what = "by a patching that was cut off" if seen.cut else "before omni-infer's patches"
        build_state.put_aside(code, "vllm", what)
    else:
        build_state.put_back(code, "vllm", "built")
    _mark(vllm, True)
    git.ask(vllm, "checkout", "--force", "--quiet", timeout_s=_CHECKOUT_S)
    place = code / script
    argv = ["bash", place.name]
    env = build_run.environment(code, {"python": "python3"})
    ended = watch(argv, "patching vllm", env=env, cwd=place.parent)
    now = patch_clone.state(code, script)
    assert now is not None
    if ended.code != 0 or now.missing:
        raise _failed(seen, place, ended.said, ended.tail, now)
    _mark(vllm, False)


def _failed(seen: Look, script: Path, said: str, tail: str, now: State) -> ActionError:
    why, todo = "it lacks " + now.lacks() if now.missing else "see its lines", f"less {script}"
    for sign, cause, mend in _CAUSES:
        match = re.search(sign, said)
        if match:
            found = match[1] if match.groups() else ""
            why, todo = cause, mend.format(vllm=seen.vllm, found=found)
            break
    return ActionError(
        f"{run.show(['bash', script])} did not patch vLLM: {why}.\n{tail}",
        where=str(seen.vllm),
        todo=todo,
    )


def _mark(vllm: Path, under_way: bool) -> None:
    words = ["update-ref", PATCHING, "HEAD"] if under_way else ["update-ref", "-d", PATCHING]
    git.ask(vllm, *words, timeout_s=_CHECKOUT_S)
