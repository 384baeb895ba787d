"""The verification of a converted checkpoint: structure, hashes, numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional

from omnikit.errors import ActionError
from omnikit.weights import checkpoint, convert_plan, convert_records, verify_structure
from omnikit.weights.meter import Meter


def verify(
    target: Path,
    source: Optional[Path],
    sample: Optional[tuple[int, int]],
    threads: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The findings: {form, problems, hashes, kinds, ok}.

    sample: (matrices of a kind, rows of a matrix) that are compared with the source; None: all.
    Raises InputError: no checkpoint there, or none of a form that is known.
    """
    from omnikit.weights import verify_numbers  # late: numpy

    made = checkpoint.read(target)
    origin = convert_plan.plan(checkpoint.read(source)) if source else None
    structure = verify_structure.look(made, origin)
    hashes, problems = _hashes(target, threads, say)
    result: dict[str, Any] = {
        "target": str(target),
        "form": structure.form,
        "quantised": len(structure.quantised),
        "tensors": len(made.tensors),
        "problems": structure.problems + problems,
        "hashes": hashes,
        "kinds": [],
    }
    if origin is not None:
        each, rows = sample or (None, None)
        meter = Meter(0, say, "compared")
        kinds = verify_numbers.compare(origin, made, structure.form, rows, each, threads, meter)
        result["kinds"] = [kind.report() for kind in kinds]
        result["sample"] = list(sample) if sample else "all"
    result["ok"] = not result["problems"] and all(kind["ok"] for kind in result["kinds"])
    return result


def _hashes(target: Path, threads: int, say: Callable[[str], None]) -> tuple[int, list[str]]:
    """How many files are what they were when they were made, and those that are not."""
    file = target / convert_plan.MANIFEST
    if not file.exists():
        return 0, []
    files = checkpoint.read_json(file).get("files", {})
    problems = [f"{name} is missing" for name in files if not (target / name).is_file()]
    there = [name for name in files if (target / name).is_file()]
    meter = Meter(sum((target / name).stat().st_size for name in there), say, "hashed")

    def check(name: str) -> bool:
        return convert_records.sha256(target / name, meter.add) == str(files[name]["sha256"])

    try:
        with ThreadPoolExecutor(threads) as pool:
            good = dict(zip(there, pool.map(check, there)))
    except OSError as error:
        raise ActionError(f"cannot be read: {error}.", where=str(target)) from error
    problems += [
        f"{name} is not what it was when it was made" for name, same in good.items() if not same
    ]
    strange = sorted(path.name for path in target.glob("*.safetensors") if path.name not in files)
    problems += [f"{name} does not belong here: the manifest does not name it" for name in strange]
    return sum(good.values()), problems
