"""Fetches pinned wheels on this machine, for an image that is built without a package index.

So the index, its mirror, its certificates and passwords are this machine's pip's own affair, and
nothing of them enters an image.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Mapping, Optional

from omnikit import engine_pins, engine_steps, run
from omnikit.engine_progress import Progress
from omnikit.engine_steps import Step
from omnikit.errors import ActionError

_NO_MATCH = "No matching distribution found"


def found(folder: Path, pins: Mapping[str, str]) -> dict[str, Path]:
    """The whole wheels of a folder that are pinned, by package name."""
    here = {}
    for path in folder.glob("*.whl"):
        name, version = (*path.name.split("-"), "")[:2]
        name = engine_pins.normal(name)
        # The table at a wheel's end is missing where a download or a copy was cut.
        if pins.get(name) == version and zipfile.is_zipfile(path):
            here[name] = path
    return here


def steps(folder: Path, pins: Mapping[str, str], python: str, torch_index: str) -> list[Step]:
    """The pip commands that fetch what a folder lacks, in order."""
    missing = [f"{n}=={v}" for n, v in pins.items() if n not in found(folder, pins)]
    pip = (sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--no-deps")
    words = (*pip, "--progress-bar=off", f"--python-version={python}", f"--dest={folder}")
    made = []
    torch = [pin for pin in missing if pin.startswith("torch==")]
    others = [pin for pin in missing if pin not in torch]
    for pin in torch:
        other = (*words, pin, "--index-url", torch_index)
        made.append(Step(f"fetching {pin}", (*words, pin), other))
    if others:
        made.append(Step(f"fetching {len(others)} wheels", (*words, *others)))
    return made


def fetch(
    folder: Path, pins: Mapping[str, str], python: str, torch_index: str, progress: Progress
) -> dict[str, Path]:
    """Have every pinned wheel in a folder; those that are there and whole stay.

    Raises ActionError that says what pip's failure means.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.whl"):
        if not zipfile.is_zipfile(path):
            path.unlink()  # pip would take it for whole

    def count() -> str:
        return f"{len(list(folder.glob('*.whl')))} of {len(pins)} wheels there"

    for step in steps(folder, pins, python, torch_index):
        progress.step(step.what)
        with progress.watched(count):
            index, code = None, _pip(step.argv, progress)
            if code != 0 and step.otherwise and _NO_MATCH in "\n".join(progress.lines):
                index = step.otherwise[-1]
                progress.step(f"{step.what} from {index}")
                code = _pip(step.otherwise, progress)
        if code != 0:
            raise engine_steps.failure(progress.lines, step.what, index)
    here = found(folder, pins)
    missing = sorted(set(pins) - set(here))
    if missing:
        raise ActionError(
            f"pip fetched other wheels than it was asked for; missing: {', '.join(missing)}.",
            where=str(folder),
            todo=f"delete {folder} and run this again",
        )
    return here


def _pip(argv: tuple[str, ...], progress: Progress) -> int:
    progress.lines.clear()
    return run.stream(argv, progress.heard, env=engine_steps.ENV)


def needed(pins: Optional[Path]) -> dict[str, str]:
    """The pins of a file, or none."""
    return engine_pins.read_pins(pins) if pins else {}
