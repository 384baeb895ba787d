"""Whether a source has a whole checkpoint: its list and index before, all headers afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Collection, Optional, Sequence

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint.headers import INDEX, read_header
from omnikit.weights.download.types import Listing

# Names of files that hold weights.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_COMPLETE = "complete it there, or choose another source or revision"

Wanted = Callable[[str], bool]


def check_list(listing: Listing, whole: bool, wanted: Wanted) -> None:
    """Hold the names of a source's files against what a checkpoint has, before anything is fetched.

    whole: a whole checkpoint is wanted, not files that patterns include. wanted: whether the
    patterns choose a name. Raises ActionError: what is expected, and what the source has.
    """
    lost = [f"{name} ({why})" for name, why in listing.lost.items() if wanted(name)]
    if lost:
        raise ActionError(
            f"does not give {len(lost)} of its files: {_some(lost, '; ')}.",
            where=listing.origin,
            todo=f"{_COMPLETE}; or leave them out with --exclude",
        )
    names = [file.name for file in listing.files]
    lacks = _lacks([name for name in names if "/" not in name]) if whole else ""
    if lacks:
        raise ActionError(
            f"is no whole checkpoint: it lacks {lacks}; it has {_some(names) or 'no files'}.",
            where=listing.origin,
            todo=f"name the folder or repository of the checkpoint itself; {_COMPLETE};"
            " or name the files that you want with --include",
        )


def _lacks(names: Sequence[str]) -> str:
    if "config.json" not in names:
        return "config.json"
    shards = [name for name in names if "-of-" in name and name.endswith(".safetensors")]
    if shards and not any(name.endswith(".safetensors.index.json") for name in names):
        return f"{INDEX}, which tells how many files like {min(shards)} there are"
    if INDEX not in names and not any(name.endswith(WEIGHTS) for name in names):
        return "weights (*.safetensors)"
    return ""


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return between.join(names[:5]) + more


def check_index(text: bytes, listing: Listing, wanted: Wanted) -> None:
    """Hold the index against the source's list, before any of its shards is fetched.

    Raises ActionError: it names shards that the source has not.
    """
    weight_map = _weight_map(text)
    if weight_map is None:
        _refuse([f"{INDEX} has no weight_map"], listing.origin)
    names = {file.name for file in listing.files}
    _refuse(_missing(set((weight_map or {}).values()) - names, wanted), listing.origin)


def check(names: Collection[str], wanted: Wanted, place: Callable[[str], Path], origin: str) -> int:
    """Hold the fetched files against each other; the number of headers read.

    names: files that are here. wanted: whether the patterns choose a name. place: where a file
    lies. Raises ActionError: what the source has is no whole checkpoint.
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
        problems += _against_index(place(INDEX), headers, wanted)
    _refuse(problems, origin)
    return len(headers)


def _refuse(problems: Sequence[str], origin: str) -> None:
    if problems:
        raise ActionError(
            f"is no whole checkpoint: {_some(problems, '; ')}.",
            where=origin,
            todo=f"its files are as published there: {_COMPLETE}",
        )


def _against_index(index: Path, headers: dict[str, set[str]], wanted: Wanted) -> list[str]:
    weight_map = _weight_map(index.read_bytes())
    if weight_map is None:
        return [f"{INDEX} has no weight_map"]
    problems = []
    shards = set(weight_map.values())
    for shard in sorted(shards & set(headers)):
        said = {name for name, file in weight_map.items() if file == shard}
        lost, more = said - headers[shard], headers[shard] - said
        if lost:
            problems.append(f"{shard} has no {min(lost)}, which the index says that it holds")
        if more:
            problems.append(f"{shard} holds {min(more)}, which the index does not say")
    return problems + _missing(shards - set(headers), wanted)


def _missing(shards: Collection[str], wanted: Wanted) -> list[str]:
    chosen = [shard for shard in sorted(shards) if wanted(shard)]
    return [f"{shard} is missing, the index names it" for shard in chosen]


def _weight_map(text: bytes) -> Optional[dict[str, str]]:
    """Tensor to file; None where there is no such thing in it."""
    try:
        found = json.loads(text)["weight_map"]
        return {str(name): str(file) for name, file in found.items()} or None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
