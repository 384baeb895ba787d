"""Which files a checkpoint consists of, and whether they are all there. Reads, changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def problems(folder: Path) -> list[str]:
    """Why a folder is no whole checkpoint: index, its shards, config.json. Empty: it is whole."""
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    found = [] if (folder / "config.json").is_file() else ["there is no config.json"]
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) != 1:
        names = ", ".join(path.name for path in indexes) or "none"
        return [*found, f"expected one *.safetensors.index.json, found {names}"]
    try:
        shards = sorted(set(json.loads(indexes[0].read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return [*found, f"{indexes[0].name} cannot be read: {error!r}"]
    missing = [name for name in shards if not _size(folder / str(name))]
    if missing or not shards:
        shown = ", ".join(map(str, missing[:3])) + (" …" if len(missing) > 3 else "")
        found.append(f"{len(missing)} of {len(shards)} shards missing or empty: {shown}")
    return found


def written(folder: Path) -> tuple[int, int]:
    """Number and bytes of the weight files in a folder, links followed."""
    sizes = [_size(path) for path in folder.glob("*.safetensors")]
    return len(sizes), sum(sizes)


def fingerprint(folder: Path) -> dict[str, str]:
    """What tells this checkpoint from another; edits with a kept original do not count."""
    shards = [
        f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.glob("*.safetensors"))
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
