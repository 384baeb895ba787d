"""What is sent to the engine for a build: exactly the recipe's files. And their fingerprint."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Iterator, Mapping

from omnikit.errors import InputError
from omnikit.image_recipes import PYTHON, Recipe, machine
from omnikit.image_wheels import needed

_CHUNK = 1 << 20


def digest(recipe: Recipe, base_id: str) -> str:
    """A fingerprint of all that decides what the image will be.

    Of wheels that are fetched their pins count, so that it can be told without fetching them.
    """
    made_of = {
        "files": {
            name: _sha256(path) for name, path in recipe.files.items() if name not in recipe.tools
        },
        "pins": needed(recipe.pins),
        "wheels": {path.name: _sha256(path) for path in recipe.wheels},
        "args": dict(recipe.args),
        "labels": dict(recipe.labels),
        "base": base_id,
        "for": [PYTHON, machine()],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def write(folder: Path, recipe: Recipe, fetched: Mapping[str, Path]) -> None:
    """Make the build context anew. Wheels are linked, not copied, where that is possible."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for name, path in recipe.files.items():
        there = beside / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
        there.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    wheels = [*fetched.values(), *recipe.wheels]
    if wheels:
        (beside / "wheels").mkdir()
    for path in wheels:
        _link(path, beside / "wheels" / path.name)
    for place in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
        place.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep two builds of one image apart; the kernel drops the lock when this process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"process {lock.read().strip() or '(unknown)'} is building the image {name}.",
                where=str(folder),
                todo="wait until it has ended, then run this again",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _link(path: Path, there: Path) -> None:
    try:
        os.link(path, there)
    except OSError:  # another file system, or one without links
        shutil.copy(path, there)


def _sha256(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()
