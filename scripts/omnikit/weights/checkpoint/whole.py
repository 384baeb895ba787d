"""Which files a checkpoint consists of, and whether they are all there. Reads, changes nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hostkit.base.errors import InputError
from hostkit.files import regular
from omnikit.weights.checkpoint import headers

_SHOWN = 3


def problems(folder: Path) -> list[str]:
    """Why a folder is no whole checkpoint: index, its shards, config.json. Empty: it is whole.

    Of the shards only the headers are read: enough to see that one is cut, empty of sense, or
    another than the index says.
    """
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    found = [] if (folder / "config.json").is_file() else ["there is no config.json"]
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) != 1:
        names = ", ".join(path.name for path in indexes) or "none"
        return [*found, f"expected one *.safetensors.index.json, found {names}"]
    try:
        weight_map = regular.parsed(indexes[0])["weight_map"]
        held: dict[str, list[str]] = {}
        for name, file in sorted(weight_map.items()):
            held.setdefault(str(file), []).append(name)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return [*found, f"{indexes[0].name} cannot be read: {error!r}"]
    missing = [name for name in sorted(held) if not _size(folder / name)]
    if missing or not held:
        found.append(
            f"{len(missing)} of {len(held)} shards missing or empty: {_few(missing, ', ')}"
        )
    damaged = [_damage(folder / name, held[name]) for name in sorted(held.keys() - set(missing))]
    damaged = [one for one in damaged if one]
    if damaged:
        found.append(f"{len(damaged)} of {len(held)} shards damaged: {_few(damaged, '; ')}")
    return found


def _damage(shard: Path, names: list[str]) -> str:
    """Why a shard is not the one in which the index has these tensors; empty: it is."""
    try:
        tensors, _ = headers.read_header(shard)
    except InputError as error:
        return f"{shard.name} {error.what.rstrip('.')}"
    lost = [name for name in names if name not in tensors]
    more = f" and {len(lost) - 1} more tensors of the index" if len(lost) > 1 else ""
    return f"{shard.name} has no {lost[0]}{more}" if lost else ""


def _few(texts: list[str], between: str) -> str:
    return between.join(texts[:_SHOWN]) + (" …" if len(texts) > _SHOWN else "")


def written(folder: Path) -> tuple[int, int]:
    """Number and bytes of the weight files in a folder, links followed."""
    sizes = [_size(path) for path in folder.glob("*.safetensors")]
    return len(sizes), sum(sizes)


def fingerprint(folder: Path) -> dict[str, str]:
    """What tells this checkpoint from another; edits with a kept original do not count."""
    shards = [
        f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.glob("*.safetensors"))
        if path.exists()  # a link may lead nowhere; problems() says so
    ]
    texts = sorted({path.name for path in folder.glob("*.json")} | {"modeling_deepseek.py"})
    originals = {name: digest(_original(folder / name)) for name in texts}
    return {**originals, "shards": hashlib.sha256("\n".join(shards).encode()).hexdigest()}


def digest(path: Path) -> str:
    """SHA-256 of a file; empty when there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _original(path: Path) -> Path:
    kept = path.with_name(f"{path.name}.orig")
    return kept if os.path.lexists(kept) else path


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
