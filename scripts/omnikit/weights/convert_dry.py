"""The dry run of a conversion: sizes and every action, then the time, from a measurement."""

from __future__ import annotations

import json
from typing import Any, Callable, Optional

from omnikit.errors import InputError
from omnikit.weights import convert_actions, convert_faults
from omnikit.weights.convert_actions import Rest
from omnikit.weights.meter import duration, size_text


def no_space(rest: Rest) -> InputError:
    """The disk is too small for what is still to be written."""
    return InputError(
        f"needs {size_text(rest.needed)} more, {size_text(rest.free)} are free.",
        where=str(rest.target),
        todo="free some space, or choose another target",
    )


def run(
    rest: Rest,
    result: dict[str, Any],
    load: Callable[[], tuple[Any, float]],
    threads: int,
    as_json: bool,
) -> int:
    """Print it; returns 0. result: what is known already, for JSON. load: makes the arithmetic
    ready, returns it and the seconds until a run has it.

    Raises InputError, after all is printed: too little space, or a target that cannot be written.
    """
    result.update(_facts(rest), threads=threads)
    if not as_json:  # at once: what follows takes a while, and may fail
        print("\n".join(_head(rest, result)), flush=True)
    error = no_space(rest) if rest.needed > rest.free else None
    result["result"] = "not enough space" if error else "would be converted"
    try:
        result["estimate"] = _estimate(rest, load, threads)
    except OSError as fault:
        error, result["result"] = convert_faults.refused(fault, rest.near), "cannot be converted"
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        if "estimate" in result:
            print(_time(rest, result))
        print(f"{rest.target}: {result['result']}", flush=True)
    if error is not None:
        raise error
    return 0


def _facts(rest: Rest) -> dict[str, Any]:
    return {
        "files_to_do": len(rest.left),
        "files_kept": len(rest.kept),
        "tensors": convert_actions.tensors(rest),
        "scales_left_out": convert_actions.scales_left_out(rest),
        "files_copied": [path.name for path in rest.others],
        "actions": convert_actions.lines(rest),
        "needed_bytes": rest.needed,
        "free_bytes": rest.free,
    }


def _head(rest: Rest, result: dict[str, Any]) -> list[str]:
    sizes = [size_text(result[key]) for key in ("source_bytes", "target_bytes")]
    return [
        f"source: {sizes[0]}; result: {sizes[1]}",
        f"space: {size_text(rest.needed)} needed, {size_text(rest.free)} free",
        "to do:",
        *(f"  {number}. {line}" for number, line in enumerate(result["actions"], 1)),
    ]


def _estimate(
    rest: Rest, load: Callable[[], tuple[Any, float]], threads: int
) -> Optional[dict[str, float]]:
    # Late: numpy takes time to import, and sizes and actions need none of it.
    from omnikit.weights import convert_estimate

    arithmetic, start = load()
    rates = convert_estimate.measure(rest, arithmetic, threads)
    if rates is None:
        return None
    rates["start"] = round(start, 3)
    rates["seconds"] = convert_estimate.seconds(rest, rates, threads, start)
    return rates


def _time(rest: Rest, result: dict[str, Any]) -> str:
    found = result["estimate"]
    if found is None:
        return f"time: not measured, too little space is free in {rest.near}"
    rates = ", ".join(
        f"{what} {size_text(found[what])}/s" for what in ("read", "compute", "hash", "write")
    )
    return f"time: about {duration(found['seconds'])} with {result['threads']} threads ({rates})"
