"""The last look at a conversion before it gets its name: what was written is what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnikit.errors import ActionError
from omnikit.weights import checkpoint, verify_numbers, verify_structure
from omnikit.weights.convert_plan import Conversion
from omnikit.weights.meter import Meter

# A sample that takes a second or two, whatever the checkpoint's size. verify_weights.py looks at
# more of it.
_MATRICES, _ROWS = 3, 8  # of each kind, of each matrix


def look(conversion: Conversion, work: Path, threads: int) -> dict[str, Any]:
    """Every tensor's name, dtype and shape, and a sample of the numbers against the source's.

    Returns what was compared: {matrices, values, max_error_steps}. Raises ActionError: the
    result is not what the source gives.
    """
    made = checkpoint.read(work)
    structure = verify_structure.look(made, conversion)
    silent = Meter(0, lambda _: None)
    kinds = verify_numbers.compare(
        conversion, made, structure.form, _ROWS, _MATRICES, threads, silent
    )
    problems = [*structure.problems, *(text for kind in kinds for text in kind.problems())]
    if problems:
        raise ActionError(
            f"the result is not what the source gives: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            where=str(work),
            todo=f"check this machine's memory and disk, then begin anew: rm -r {work}",
        )
    return {
        "matrices": sum(kind.checked for kind in kinds),
        "values": sum(kind.values for kind in kinds),
        "max_error_steps": max(kind.largest for kind in kinds),
    }
