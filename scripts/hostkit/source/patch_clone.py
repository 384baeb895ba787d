"""vLLM in omni-infer's source, as upstream's patches and git see it. Changes nothing.

Upstream's script says itself which patches it applies, in which order: it runs with a "git" that
writes down what it is asked for and with a few programs that only read, in an empty stand-in of
vLLM's folder. So comments, loops, arguments and conditions mean what they mean.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError
from hostkit.source import clone_look, patch_state
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
    return patch_state.look(vllm, patches(code, script, vllm))


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


_QUICK_S = 60.0
# They read, or write nothing but their output.
_PROGRAMS = (
    *("bash", "sh", "dirname", "basename", "realpath", "readlink", "pwd", "cat", "ls", "find"),
    *("sort", "head", "tail", "wc", "tr", "cut", "grep", "sed", "awk", "seq", "xargs", "env"),
)
_GIT = """#!{bash}
printf '%s\\0' "$PWD" "$@" >>{calls}
printf '\\n' >>{calls}
"""
# What else a script calls is left out, and no file that is there is written to.
_REST = "set -o noclobber\ncommand_not_found_handle() { return 0; }\n"
_NOT_APPLIED = ("--check", "--stat", "--numstat", "--summary", "-R", "--reverse")


def patches(code: Path, script: str, vllm: Path) -> list[Path]:
    """The patches that a script of the source in code applies to vllm, below it, in order.

    Raises InputError when the script, or a patch that it names, is not there.
    """
    place = code / script
    if not place.is_file():
        raise InputError(
            "the script that applies omni-infer's patches to vLLM is not in this source.",
            where=str(place),
            todo="check out a whole omni-infer of this release, or set source.patches",
        )
    with tempfile.TemporaryDirectory(prefix="omnikit-patches-") as private:
        root = Path(private).resolve()
        stage, calls = root / "source", root / "calls"
        inside = vllm.relative_to(code)
        _lay_out(code, stage, [Path(script), inside])
        shutil.copyfile(place, stage / script)
        _run(stage / script, _tools(root, calls), root / "rest.sh")
        found = list(_applied(calls, stage / inside))
    for one in found:
        if not one.is_file():
            raise InputError(
                f"a patch that {script} applies is not there.",
                where=str(one),
                todo="check out a whole omni-infer of this release",
            )
    if not found:
        raise InputError(
            "no patch was found that this script applies to vLLM.",
            where=str(place),
            todo="set source.patches to the script that does, or to null if there is none",
        )
    return found


def _lay_out(code: Path, stage: Path, own: Sequence[Path]) -> None:
    """A stand-in of the source: links to what is there, but for the paths of our own."""
    stage.mkdir()
    names = {path.parts[0] for path in own}
    for path in code.iterdir():
        if path.name not in names:
            (stage / path.name).symlink_to(path)
    for name in sorted(names):
        below = [Path(*path.parts[1:]) for path in own if path.parts[0] == name]
        deeper = [path for path in below if path.parts]
        if deeper:
            _lay_out(code / name, stage / name, deeper)
        elif (code / name).is_dir():
            (stage / name / ".git").mkdir(parents=True)


def _tools(root: Path, calls: Path) -> Path:
    folder = root / "bin"
    folder.mkdir()
    for name in _PROGRAMS:
        program = shutil.which(name)
        if program is not None:
            (folder / name).symlink_to(program)
    git = folder / "git"
    git.write_text(_GIT.format(bash=folder / "bash", calls=calls))
    git.chmod(0o755)
    return folder


def _run(script: Path, tools: Path, rest: Path) -> None:
    rest.write_text(_REST)
    env = {"PATH": str(tools), "BASH_ENV": str(rest)}
    done = run.run(
        [tools / "bash", script.name], env=env, cwd=script.parent, timeout=_QUICK_S, check=False
    )
    if done.code != 0:
        raise InputError(
            "this script does not say which patches it applies: its exit status is"
            f" {done.code}.\n{done.tail}",
            where=script.name,
            todo="see what it needs, or set source.patches to another",
        )


def _applied(calls: Path, vllm: Path) -> Iterator[Path]:
    """The files of "git apply" and "git am" in vLLM's folder."""
    written = calls.read_bytes() if calls.exists() else b""
    for record in written.split(b"\0\n"):
        folder, *words = (os.fsdecode(word) for word in record.split(b"\0"))
        place = Path(folder)
        while words and words[0].startswith("-"):  # options of git itself
            takes = words[0] in ("-C", "-c", "--git-dir", "--work-tree")
            if words[0] == "-C" and len(words) > 1:
                place = place / words[1]
            words = words[2 if takes else 1 :]
        if not words or words[0] not in ("apply", "am") or set(words) & set(_NOT_APPLIED):
            continue
        if vllm not in (place.resolve(), *place.resolve().parents):
            continue
        for word in words[1:]:
            if not word.startswith("-") and word.endswith((".patch", ".diff")):
                yield (place / word).resolve()
