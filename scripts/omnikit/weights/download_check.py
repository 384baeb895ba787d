"""A last look at a downloaded checkpoint: its index, and every header against its file."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Collection

from omnikit.errors import ActionError, InputError
from omnikit.weights.checkpoint import INDEX, read_header, read_json


def check(
    names: Collection[str], left_out: Collection[str], place: Callable[[str], Path], origin: str
) -> int:
    """Hold the fetched files against each other; the number of headers read.

    names: files that are here. left_out: those that patterns exclude. place: where a file lies.
    Raises ActionError: what the source has is no whole checkpoint.
    """
    problems = []
    headers = {}
    for name in sorted(names):
        if name.endswith(".safetensors"):
            try:
                headers[name] = set(read_header(place(name))[0])
            except InputError as error:
                problems.append(f"{name} {error.what.rstrip('.')}")
    if INDEX in names:
        problems += _against_index(place(INDEX), headers, left_out)
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ActionError(
            f"is no whole checkpoint: {'; '.join(problems[:5])}{more}.",
            where=origin,
            todo="its files are as published there: complete it there, or choose another source"
            " or revision",
        )
    return len(headers)


def _against_index(
    index: Path, headers: dict[str, set[str]], left_out: Collection[str]
) -> list[str]:
    try:
        weight_map = read_json(index).get("weight_map")
    except InputError as error:
        return [f"{INDEX} {error.what.rstrip('.')}"]
    if not isinstance(weight_map, dict) or not weight_map:
        return [f"{INDEX} has no weight_map"]
    problems = []
    for shard in sorted({str(file) for file in weight_map.values()}):
        said = {name for name, file in weight_map.items() if file == shard}
        if shard in headers:
            lost, more = said - headers[shard], headers[shard] - said
            if lost:
                problems.append(f"{shard} has no {min(lost)}, which the index says that it holds")
            if more:
                problems.append(f"{shard} holds {min(more)}, which the index does not say")
        elif shard not in left_out:
            problems.append(f"{shard} is missing, the index names it")
    return problems
