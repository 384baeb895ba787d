"""The steps of an engine's installation: each one command, with progress and a clear failure."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional, Sequence

from omnikit import engine_pins, run
from omnikit.engine_pins import CACHE, LOCK, python_of
from omnikit.engine_progress import Progress
from omnikit.engine_python import Python
from omnikit.errors import ActionError

ENV = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_USER": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "",
    "PYTHONDONTWRITEBYTECODE": "",  # else each server would compile 4,000 modules at its start
}
# Only built packages, only what is pinned. Of 21,000 modules servers load 5,000: these are compiled
# afterwards, most of them by the import.
_INSTALL = ("install", "--no-deps", "--only-binary=:all:", "--no-compile")

# Importing the model's code in the installation shows that the engine is whole. It also fills the
# cache in which servers look up what the model can do; each would else take seconds to find out.
_TRY = """
import torch, nixl._api
import vllm.entrypoints.openai.api_server
from vllm.model_executor.models.registry import ModelRegistry
from vllm.platforms import current_platform
assert current_platform.is_cpu(), "this vLLM is not built for CPU"
ModelRegistry.models["Qwen2ForCausalLM"].inspect_model_cls()
"""
_NO_INDEX = re.compile(
    r"NewConnectionError|Failed to establish a new connection|Connection refused|Max retries"
    r"|Name or service not known|name resolution|timed out|TimeoutError|ProxyError|SSLError"
    r"|Network is unreachable|Could not fetch URL|ConnectionResetError|RemoteDisconnected"
)
_NO_MATCH = "No matching distribution found"


@dataclass(frozen=True)
class Step:
    """A pip command. otherwise: tried when the first finds no such package in the index."""

    what: str
    argv: tuple[str, ...]
    otherwise: Optional[tuple[str, ...]] = None


def pip_steps(
    venv: Path, pins_file: Path, pins: Mapping[str, str], torch_index: Optional[str]
) -> list[Step]:
    """The pip commands in order.

    First pip itself: small, so a missing network shows at once. Then torch, whose CPU build
    (version …+cpu) is asked for by name: without it pip would fetch several GB of CUDA build.
    """
    pip = (str(python_of(venv)), "-m", "pip")
    steps: list[Step] = []
    words: tuple[str, ...]
    if "pip" in pins:
        words = (*pip, "install", "--retries", "1", f"pip=={pins['pip']}")
        steps.append(Step(f"fetching pip {pins['pip']}", words))
    bar = _progress_bar(pins.get("pip", "0"))
    if "torch" in pins:
        words = (*pip, *_INSTALL, *bar, f"torch=={pins['torch']}")
        other = (*words, "--index-url", torch_index) if torch_index else None
        steps.append(Step(f"fetching torch {pins['torch']}", words, other))
    words = (*pip, *_INSTALL, *bar, "-r", str(pins_file))
    steps.append(Step(f"fetching and installing {len(pins)} packages", words))
    return steps


def _progress_bar(pip_version: str) -> tuple[str, ...]:
    """How to hear of a download's progress: pip tells it to programs since 24.1."""
    return ("--progress-bar", "raw") if int(pip_version.split(".")[0]) >= 25 else ()


def compile_words(venv: Path, version: str) -> tuple[str, ...]:
    """The command that compiles vLLM's own modules on all cores, so that no server has to."""
    vllm = engine_pins.site_packages(venv, version) / "vllm"
    return (str(python_of(venv)), "-m", "compileall", "-q", "-j", "0", str(vllm))


def import_words(venv: Path) -> tuple[str, ...]:
    """The command that shows that the engine can be imported."""
    return (str(python_of(venv)), "-c", _TRY)


def make_venv(python: Python, venv: Path, progress: Progress) -> None:
    """An empty virtual environment; what an earlier installation left there goes."""
    progress.step(f"making a virtual environment with {python.path} (Python {python.version})")
    for path in venv.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    done = run.run([python.path, "-m", "venv", venv], env=ENV, check=False)
    if done.code != 0:
        raise ActionError(
            f"cannot make a virtual environment:\n{done.tail}",
            where=str(venv),
            todo=f"on Debian and Ubuntu: apt-get install python{python.version}-venv",
        )


def run_pip(step: Step, venv: Path, version: str, total: int, progress: Progress) -> None:
    """Run a step, and its second way where the first finds no such package."""
    _forget_halves(venv, version)
    progress.step(step.what)

    def count() -> str:
        return f"{len(engine_pins.installed(venv, version))} of {total} packages there"

    with progress.watched(count):
        index = None
        code = _pip(step.argv, progress)
        if code != 0 and step.otherwise and _NO_MATCH in "\n".join(progress.lines):
            index = step.otherwise[-1]
            progress.step(f"{step.what} from {index}")
            code = _pip(step.otherwise, progress)
    if code != 0:
        raise failure(progress.lines, step.what, index)


def _pip(argv: Sequence[str], progress: Progress) -> int:
    progress.lines.clear()
    return run.stream(argv, progress.heard, env=ENV)


def failure(lines: Sequence[str], what: str, torch_index: Optional[str] = None) -> ActionError:
    """One error that says what pip's many lines mean.

    torch_index: the index that was asked, where it was not the plain one.
    """
    text = "\n".join(lines)
    errors = [line for line in lines if line.startswith("ERROR:")] or list(lines[-3:])
    key = errors[-1].strip() if errors else "nothing"
    again = "then run this again: what is there already is kept"
    other = "--torch-index URL (setting engine.torch_index)"
    mirror = other if torch_index else "export PIP_INDEX_URL=https://HOST/simple"
    if "No space left" in text:
        return ActionError(f"{what}: the disk is full.", todo=f"free some space; {again}")
    lost = next((line for line in lines if _NO_INDEX.search(line)), None)
    if lost:
        index = f"the index {torch_index}" if torch_index else "no package index"
        reached = (
            "could not be reached, and the plain one has no such build"
            if torch_index
            else ("could be reached")
        )
        return ActionError(
            f"{what}: {index} {reached}.\n  pip said: {_reason(lost)}",
            todo=f"check the network, or name a reachable mirror: {mirror}; {again}",
        )
    if _NO_MATCH in text:
        return ActionError(
            f"{what}: the package index has no such build.\n  pip said: {key}",
            todo=f"use an index that has it: {mirror}; {again}",
        )
    return ActionError(f"{what} failed.\n  pip said: {key}", todo="mend that; " + again)


def _reason(line: str) -> str:
    """What went wrong, out of pip's long line about a lost connection."""
    inner = re.search(r"broken by '(.*)'", line)
    return (inner[1] if inner else line).strip()[:300]


def _forget_halves(venv: Path, version: str) -> None:
    """Drop the records of packages that an interrupted pip left half installed.

    pip completes RECORD as its last act; without that it would take the half for the whole.
    """
    for record in engine_pins.site_packages(venv, version).glob("*.dist-info"):
        try:
            whole = "/INSTALLER," in (record / "RECORD").read_text(encoding="utf-8")
        except OSError:
            whole = False
        if not whole:
            shutil.rmtree(record)


def remove_others(venv: Path, version: str, pins: Mapping[str, str], progress: Progress) -> None:
    """Remove packages that are not pinned (any more)."""
    others = sorted(set(engine_pins.installed(venv, version)) - set(pins))
    if others:
        progress.step(f"removing {', '.join(others)}")
        words = [str(python_of(venv)), "-m", "pip", "uninstall", "--yes", *others]
        if _pip(words, progress) != 0:
            raise failure(progress.lines, "removing packages")


def compile_vllm(venv: Path, version: str, progress: Progress) -> None:
    """Compile vLLM's modules; what cannot be compiled, the import tells if it matters."""
    progress.step("compiling modules")
    with progress.watched():
        run.run(compile_words(venv, version), env=ENV, check=False)


def try_import(venv: Path, progress: Progress) -> None:
    """Import the engine as a server would; Python keeps what it compiles for that."""
    progress.step("compiling and importing what servers load")
    env = {**ENV, "VLLM_CACHE_ROOT": str(venv / CACHE), "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": ""}
    with progress.watched():
        done = run.run(import_words(venv), env=env, check=False)
    if done.code != 0:
        raise ActionError(
            f"the engine is installed, but cannot be imported:\n{done.tail}",
            where=str(venv),
            todo=f"delete {venv} and run this again; libraries of the system may be too old",
        )
