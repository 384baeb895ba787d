"""The verification of a converted checkpoint: structure, hashes, scales, numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.hashes import sha256
from omnikit.weights.meter import Meter
from omnikit.weights.verify import structure as verify_structure


def verify(
    target: Path,
    source: Optional[Path],
    sample: Optional[tuple[int, int]],
    threads: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The findings: {form, problems, todo, hashes, scales, kinds, ok}.

    sample: (matrices of a kind, rows of a matrix) whose values are compared with the source; None:
    all. Of these matrices the scales of all rows are compared too; and of all int8 matrices every
    scale is read and must be a number above 0.
    Raises InputError: no checkpoint there, or none of a form that is known.
    """
    from omnikit.weights.verify import numbers as verify_numbers  # late: numpy

    made = headers.look(target)
    origin = w8a8.plan(headers.read(source)) if source else None
    structure = verify_structure.look(made, origin)
    hashes, problems = _hashes(target, made.shards, threads, say)
    read = Meter(0, say, "of scales read")
    problems += verify_numbers.scales(made, structure.quantised, threads, read)
    result: dict[str, Any] = {
        "target": str(target),
        "form": structure.form,
        "quantised": len(structure.quantised),
        "tensors": len(made.tensors),
        "problems": list(dict.fromkeys(structure.problems + problems)),  # some are seen twice
        "hashes": hashes,
        "kinds": [],
    }
    if origin is not None:
        each, rows = sample or (None, None)
        meter = Meter(0, say, "compared")
        kinds = verify_numbers.compare(
            origin, made, structure.form, rows, each, threads, meter, all_scales=True
        )
        result["kinds"] = [kind.report() for kind in kinds]
        result["sample"] = list(sample) if sample else "all"
    result["ok"] = not result["problems"] and all(kind["ok"] for kind in result["kinds"])
    result["todo"] = None if result["ok"] else _todo(result, target)
    return result


def _todo(result: dict[str, Any], target: Path) -> str:
    """What mends most of it."""
    if any("finish_checkpoint.py" in problem for problem in result["problems"]):
        return f"invoke finish-checkpoint --dir {target}, then verify again"
    found = [*result["problems"], *(text for one in result["kinds"] for text in one["problems"])]
    if all("does not belong here" in problem for problem in found):
        return "move the files that do not belong here away"
    method = " --method msmodelslim" if result["form"] == verify_structure.MSMODELSLIM else ""
    return (
        "where this is a copy, copy the files that are named again; else convert again into an"
        f" empty folder: invoke convert-weights{method}"
    )


def _hashes(
    target: Path, shards: Sequence[str], threads: int, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """How many files are as the manifest of the conversion says, and what is wrong. shards: that
    the index names.
    """
    file = target / w8a8.MANIFEST
    if not file.exists():
        return 0, []
    try:
        files = headers.read_json(file).get("files")
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
        return sha256(target / name, meter.add) == hashes[name]

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
