"""msmodelslim as the settings name it: its command, its environment, what its --help says."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from hostkit.base import run
from hostkit.base.errors import ActionError, InputError
from omnikit.config.schema import Settings

PACKAGES = ("transformers", "accelerate", "torch", "torch-npu")

# Read from what is installed, not by importing: torch alone takes seconds, and may fail.
_FACTS = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
found = {name: version(name) for name in sys.argv[1:]}
print(json.dumps({"python": list(sys.version_info[:3]), "path": sys.executable, "packages": found}))
"""
# CANN's set_env.sh can only be sourced; what it leaves is read from the shell that did.
_SOURCE = 'source "$1" >&2 && exec env -0'
_SHELL_OWN = {"_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES"}


@dataclass(frozen=True)
class Tool:
    """What weights.msmodelslim says; free_ratio: free space needed, in sizes of the source."""

    folder: Path
    script: Path
    python: str
    set_env: Path
    flags: tuple[str, ...]
    env: Mapping[str, str]
    transformers: str
    free_ratio: float
    timeout_s: float
    npu_smi: str


def of_settings(settings: Settings) -> Tool:
    """The tool that the settings describe."""
    given = settings.weights.msmodelslim
    folder = Path(given.dir).expanduser().absolute()
    return Tool(
        folder=folder,
        script=folder / given.script,
        python=given.python,
        set_env=Path(given.set_env).expanduser().absolute(),
        flags=tuple(given.flags),
        env={name: "" if value is None else str(value) for name, value in given.env.items()},
        transformers=given.transformers,
        free_ratio=given.free_ratio,
        timeout_s=given.timeout_s,
        npu_smi=settings.ranktable.npu_smi,
    )


def command(tool: Tool, source: Path, out: Path) -> list[str]:
    """The conversion's words."""
    places = ["--model_path", str(source), "--save_path", str(out)]
    return [tool.python, str(tool.script), *places, *tool.flags]


def sourced(tool: Tool) -> dict[str, str]:
    """The variables that set_env.sh adds to ours or changes.

    Raises InputError when the file is not there, ActionError when it fails.
    """
    if not tool.set_env.is_file():
        raise InputError(f"there is no file {tool.set_env}", where="weights.msmodelslim.set_env")
    words = ["bash", "--noprofile", "--norc", "-c", _SOURCE, "bash", str(tool.set_env)]
    text = run.run(words, timeout=tool.timeout_s).out
    pairs = [entry.partition("=") for entry in text.split("\0") if "=" in entry]
    if not pairs:
        raise ActionError(f"{tool.set_env} ends the shell that sources it")
    return {
        name: value
        for name, _, value in pairs
        if name not in _SHELL_OWN and os.environ.get(name) != value
    }


def environment(tool: Tool, from_cann: Mapping[str, str]) -> dict[str, str]:
    """The variables for the tool, on top of ours: CANN's, the settings', and where it lies."""
    before = from_cann.get("PYTHONPATH", os.environ.get("PYTHONPATH", "")).split(os.pathsep)
    path = os.pathsep.join(filter(None, [str(tool.folder), *before]))  # empty: where it is started
    # Unbuffered: what it says reaches the log at once.
    return {**from_cann, "PYTHONUNBUFFERED": "1", **tool.env, "PYTHONPATH": path}


def shown(tool: Tool, source: Path, out: Path, environment: Mapping[str, str]) -> str:
    """The conversion as a line for a shell that has sourced set_env.sh."""
    own = {**tool.env, "PYTHONPATH": environment["PYTHONPATH"]}
    return run.show(command(tool, source, out), own)


def python_facts(tool: Tool, env: Mapping[str, str]) -> dict[str, Any]:
    """Version of the tool's Python and of the packages that it needs (None: not installed)."""
    words = [tool.python, "-c", _FACTS, *PACKAGES]
    done = run.run(words, env=env, timeout=tool.timeout_s)
    try:
        facts: dict[str, Any] = json.loads(done.out)
    except ValueError:
        raise ActionError(f"unexpected answer from {tool.python}: {done.out[:200]!r}") from None
    return facts


def help_text(tool: Tool, env: Mapping[str, str]) -> str:
    """What the tool's --help prints. Raises ActionError when it does not come so far."""
    words = [tool.python, str(tool.script), "--help"]
    return run.run(words, env=env, cwd=tool.script.parent, timeout=tool.timeout_s).out


def flag_problems(text: str, flags: Sequence[str]) -> list[str]:
    """What of some flags (each with its value behind it, if it has one) a --help does not know."""
    usage = " ".join(re.split(r"\n\s*\n", text, maxsplit=1)[0].split())
    problems = []
    for flag, value in _pairs(flags):
        found = re.search(
            rf"(?<![\w-]){re.escape(flag)}(?![\w-])(?: (?P<value>[^\s\[\]|-][^\s\]]*))?", usage
        )
        if found is None:
            problems.append(f"it has no {flag}")
        elif found["value"] and value is None:
            problems.append(f"{flag} wants a value: {found['value']}")
        elif value is not None and not found["value"]:
            problems.append(f"{flag} takes no value, found {value}")
    return problems


def _pairs(flags: Sequence[str]) -> list[tuple[str, Optional[str]]]:
    pairs: list[tuple[str, Optional[str]]] = []
    for word in flags:
        if word.startswith("-") or not pairs:
            name, equals, value = word.partition("=")
            pairs.append((name, value if equals else None))
        else:
            pairs[-1] = (pairs[-1][0], word)
    return pairs
