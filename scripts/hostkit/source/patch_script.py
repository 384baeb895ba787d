"""Which patches upstream's script applies to vLLM, in its order: it says so itself.

The script runs with a "git" that writes down what it is asked for and with a few programs that only
read, in an empty stand-in of vLLM's folder. So comments, loops, arguments and conditions mean what
they mean, and nothing of the source is touched.
Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

from hostkit.base import run
from hostkit.base.errors import InputError

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
