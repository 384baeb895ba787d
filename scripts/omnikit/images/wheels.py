"""Fetches pinned wheels on this machine, for an image that is built without a package index.

So the index, its mirror, its certificates and passwords are this machine's pip's own affair, and
nothing of them enters an image.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional

from hostkit.base.errors import ActionError
from hostkit.source import wheel_files
from omnikit.engine import install as engine_steps
from omnikit.engine import pins as engine_pins
from omnikit.engine.install import Step
from omnikit.engine.pins import Entry
from omnikit.engine.progress import Progress

_GLIBC = 36  # 2.36, Debian 12's, whose Python the images have


@dataclass(frozen=True)
class For:
    """What wheels are fetched for: a Python (3.11), and a machine as uname calls it."""

    python: str
    machine: str

    @property
    def words(self) -> tuple[str, ...]:
        """What pip is told of it. Of its own machine pip knows the rest itself."""
        words = (f"--python-version={self.python}",)
        if self.machine == platform.machine():
            return words
        linux = ("manylinux2014", *(f"manylinux_2_{n}" for n in range(_GLIBC, 16, -1)), "linux")
        return (*words, *(f"--platform={name}_{self.machine}" for name in linux))


def found(folder: Path, lock: Mapping[str, Entry], target: For) -> dict[str, Path]:
    """The wheels of a folder that are locked and for the target, by package name."""
    here = {}
    for path, entry in _candidates(folder, lock, target):
        if hashlib.sha256(path.read_bytes()).hexdigest() in entry.sums:
            here[entry.name] = path
    return here


def _candidates(
    folder: Path, lock: Mapping[str, Entry], target: For
) -> Iterator[tuple[Path, Entry]]:
    for path in folder.glob("*.whl"):
        entry = lock.get(engine_pins.normal(path.name.split("-")[0]))
        if entry and wheel_files.unfit(path, target.machine, target.python) is None:
            yield path, entry


def steps(folder: Path, lock: Mapping[str, Entry], target: For, torch_index: str) -> list[Step]:
    """The pip commands that fetch what a folder lacks, in order."""
    there = found(folder, lock, target)
    missing = [entry for name, entry in lock.items() if name not in there]
    pip = (sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps")
    words = (*pip, "--only-binary=:all:", "--progress-bar=off", *target.words, f"--dest={folder}")
    torch = [entry for entry in missing if entry.name == "torch"]
    others = [entry for entry in missing if entry not in torch]
    made = []
    if torch:
        what = f"fetching torch {torch[0].version}"
        made.append(engine_steps.lock_step(what, words, folder, torch, torch_index))
    if others:
        what = f"fetching {len(others)} wheels"
        made.append(engine_steps.lock_step(what, words, folder, others))
    return made


def fetch(
    folder: Path, lock: Mapping[str, Entry], target: For, torch_index: str, progress: Progress
) -> dict[str, Path]:
    """Have every locked wheel in a folder; those that are there stay.

    Raises ActionError that says what pip's failure means.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = steps(folder, lock, target, torch_index)
    kept = set(found(folder, lock, target).values())
    for path, _ in _candidates(folder, lock, target):
        if path not in kept:
            path.unlink()  # cut, old, or another file of that name

    def count() -> str:
        return f"{len(list(folder.glob('*.whl')))} of {len(lock)} wheels there"

    for step in missing:
        progress.step(step.what)
        with progress.watched(count):
            engine_steps.pip(step, progress)
    here = found(folder, lock, target)
    if lacking := sorted(set(lock) - set(here)):
        raise ActionError(
            f"pip fetched other wheels than it was asked for; missing: {', '.join(lacking)}.",
            where=str(folder),
            todo=f"delete {folder} and run this again",
        )
    return here


def needed(pins: Optional[Path]) -> dict[str, Entry]:
    """What a lock file locks, or nothing."""
    return engine_pins.read_lock(pins) if pins else {}
