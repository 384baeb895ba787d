"""Whether files are what they were when they were made: the manifest of a conversion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Sequence

from omnikit.errors import ActionError, InputError
from omnikit.weights import checkpoint, convert_plan, convert_records
from omnikit.weights.meter import Meter


def look(
    target: Path, shards: Sequence[str], threads: int, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """How many files are as made, and what is wrong. shards: that the index names."""
    file = target / convert_plan.MANIFEST
    if not file.exists():
        return 0, []
    try:
        files = checkpoint.read_json(file).get("files")
    except InputError as error:
        return 0, [f"{file.name} {error.what}"]
    if not isinstance(files, dict):
        return 0, [f"{file.name} has no list of files"]
    hashes = {name: one["sha256"] for name, one in files.items() if _has_hash(one)}
    problems = [f"{file.name} has no hash of {name}" for name in files if name not in hashes]
    problems += [f"{name} is missing" for name in files if not (target / name).is_file()]
    there = [name for name in hashes if (target / name).is_file()]
    changed = _changed(target, there, hashes, threads, say)
    problems += [f"{name} is not what it was when it was made" for name in changed]
    strange = sorted(name for name in shards if name not in files and (target / name).is_file())
    problems += [f"{name} does not belong here: the manifest does not name it" for name in strange]
    return len(there) - len(changed), problems


def _has_hash(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str)


def _changed(
    target: Path,
    names: Sequence[str],
    hashes: dict[str, str],
    threads: int,
    say: Callable[[str], None],
) -> list[str]:
    meter = Meter(sum((target / name).stat().st_size for name in names), say, "hashed")

    def check(name: str) -> bool:
        return convert_records.sha256(target / name, meter.add) == hashes[name]

    try:
        with ThreadPoolExecutor(threads) as pool:
            same = list(pool.map(check, names))
    except OSError as error:
        raise ActionError(
            f"cannot be read: {error}.",
            where=str(target),
            todo="check that you may read it, and the disk",
        ) from error
    return [name for name, one in zip(names, same) if not one]
