"""vLLM in omni-infer's source, as upstream's patches and git see it. Changes nothing.

Standard library only: this module runs on the hosts, in containers and on the control host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError
from hostkit.source import clone_look, patch_script, patch_state
from hostkit.source.git import VLLM
from hostkit.source.patch_state import State

# In the clone while upstream's script is at work: where it was before.
PATCHING = "refs/worktree/omnikit-patching"
_SHOWN = 8


@dataclass(frozen=True)
class Look:
    """state: None where there is no vLLM, or nothing to apply. edits: somebody's own work in it;
    cut: a run of ours was killed while it patched.
    """

    vllm: Path
    state: Optional[State] = None
    edits: tuple[str, ...] = ()
    cut: bool = False
    clone: bool = False

    @property
    def lacks(self) -> bool:
        """Whether patches are missing."""
        return self.state is not None and bool(self.state.missing)


def state(code: Path, script: Optional[str]) -> Optional[State]:
    """Which patches a source's vLLM has; None where there is no vLLM, or nothing to apply."""
    vllm = code / VLLM
    if script is None or not vllm.is_dir():
        return None
    return patch_state.look(vllm, patch_script.patches(code, script, vllm))


def look(parameters: dict[str, Any]) -> Look:
    """What a source's vLLM has. Changes nothing. Raises InputError for what cannot be mended here.

    parameters: dir, patches (upstream's script below it; None: nothing is applied), set_aside
    (whether somebody's own edits may be put into git's stash).
    """
    code = Path(parameters["dir"])
    vllm, found = code / VLLM, state(code, parameters["patches"])
    if found is None:
        return Look(vllm)
    clone = clone_look.is_clone(vllm)
    cut = clone_look.resolve(vllm, PATCHING) is not None
    edits = tuple(patch_state.edits(vllm, found)) if clone else ()
    seen = Look(vllm, found, edits, cut, clone)
    if seen.lacks and not clone:
        raise unpatched(seen)
    if seen.lacks and edits and not cut and not parameters["set_aside"]:
        raise _would_be_lost(seen)
    return seen


def made_by_patches(code: Path, script: Optional[str]) -> bool:
    """Whether what differs in vLLM's clone from its commit is the patches and nothing else."""
    try:
        seen = look({"dir": str(code), "patches": script, "set_aside": True})
    except InputError:
        return False
    return seen.state is not None and not (seen.lacks or seen.edits or seen.cut)


def unpatched(seen: Look) -> InputError:
    """The error of a vLLM that lacks patches and has no .git, so that nothing can be done here."""
    assert seen.state is not None
    return InputError(
        f"this vLLM lacks {seen.state.lacks()}; without them it does not serve prefill and decode"
        " of omni-infer, and without .git they cannot be applied here.",
        where=str(seen.vllm),
        todo="have vLLM as a git clone in infer_engines/vllm of paths.local_code_dir, where they"
        " are applied before it is copied: invoke sync-code; or set source.patches to null",
    )


def _would_be_lost(seen: Look) -> InputError:
    assert seen.state is not None
    more = len(seen.edits) - _SHOWN
    shown = "".join(f"\n  {path}" for path in seen.edits[:_SHOWN])
    shown += f"\n  and {more} more" if more > 0 else ""
    return InputError(
        f"this vLLM lacks {seen.state.lacks()}. Upstream's step resets the clone before it applies"
        f" them, and {len(seen.edits)} files with changes of your own would be lost:{shown}",
        where=str(seen.vllm),
        todo=f"commit or stash them (git -C {seen.vllm} stash --include-untracked); or have that"
        " done: --set source.set_edits_aside=true",
    )
