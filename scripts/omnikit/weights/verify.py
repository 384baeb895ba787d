"""The verification of a converted checkpoint: structure, hashes, scales, numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

from omnikit.weights import checkpoint, convert_plan, verify_hashes, verify_structure
from omnikit.weights.meter import Meter


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
    from omnikit.weights import verify_numbers, verify_scales  # late: numpy

    made = checkpoint.look(target)
    origin = convert_plan.plan(checkpoint.read(source)) if source else None
    structure = verify_structure.look(made, origin)
    hashes, problems = verify_hashes.look(target, made.shards, threads, say)
    read = Meter(0, say, "of scales read")
    problems += verify_scales.look(made, structure.quantised, threads, read)
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
