"""Installs the CPU engine into a virtual environment of its own: pinned, once, continued if cut.

Look first (check), install only what differs, and write the stamp last, after the engine could be
imported. A lock keeps two installations of one environment apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional

from omnikit import engine_patch, engine_pins, engine_steps, run
from omnikit.engine_pins import CACHE, LOCK, STAMP, Status, check
from omnikit.engine_progress import Progress, Say
from omnikit.engine_python import Python, find
from omnikit.errors import InputError

__all__ = ["CACHE", "Options", "Status", "check", "describe", "install"]


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

    Raises InputError before anything is changed (folder not ours, no Python, no space, another
    installation under way), ActionError when a step fails; running it again then continues.
    """
    found, python = _look(venv, requirements, options)
    if found.state == "ready":
        return found
    pins_file = engine_pins.pins_file(requirements, python.version)
    pins = engine_pins.read_pins(pins_file)
    _check_space(venv, options.disk_mib)
    with _locked(venv):
        found, python = _look(venv, requirements, options)  # another may just have finished
        if found.state == "ready":
            return found
        progress = Progress(say, options.progress_s)
        for difference in found.differences if found.state == "changed" else ():
            say(f"engine: {difference}")
        (venv / STAMP).unlink(missing_ok=True)
        if found.version != python.version:
            engine_steps.make_venv(python, venv, progress)
        for step in engine_steps.pip_steps(venv, pins_file, pins, options.torch_index):
            engine_steps.run_pip(step, venv, python.version, len(pins), progress)
        engine_steps.remove_others(venv, python.version, pins, progress)
        if "nixl-cu12" in pins and engine_patch.calm_nixl(
            engine_pins.site_packages(venv, python.version)
        ):
            progress.step("giving NIXL's progress thread a pause (see engine_patch.py)")
        engine_steps.compile_vllm(venv, python.version, progress)
        engine_steps.try_import(venv, progress)
        _write_stamp(venv, python, pins)
        say(f"engine: installed in {progress.elapsed:.0f} s: {venv}")
    return found


def describe(venv: Path, requirements: Path, options: Options) -> tuple[Status, list[str]]:
    """What install would find, and the commands that it would run. Changes nothing."""
    found, python = _look(venv, requirements, options)
    if found.state == "ready":
        return found, []
    pins_file = engine_pins.pins_file(requirements, python.version)
    pins = engine_pins.read_pins(pins_file)
    shown = []
    if found.version != python.version:
        shown.append(run.show([python.path, "-m", "venv", venv]))
    for step in engine_steps.pip_steps(venv, pins_file, pins, options.torch_index):
        shown.append(run.show(step.argv))
        if step.otherwise:
            shown.append(f"  or, where the index has no such build: {run.show(step.otherwise)}")
    shown.append(run.show(engine_steps.compile_words(venv, python.version)))
    shown.append(run.show(engine_steps.import_words(venv)))
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


@contextlib.contextmanager
def _locked(venv: Path) -> Iterator[None]:
    """Hold the installation lock of an environment; the kernel drops it when this process dies."""
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"process {lock.read().strip() or '(unknown)'} is installing the engine here.",
                where=str(venv),
                todo="wait until it has ended, then run this again",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _write_stamp(venv: Path, python: Python, pins: Mapping[str, str]) -> None:
    stamp = {"digest": engine_pins.digest(pins, python.version), "python": python.version}
    beside = venv / f"{STAMP}.new"
    beside.write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    beside.replace(venv / STAMP)
