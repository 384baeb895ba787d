"""What a conversion writes down: shards that are done, and what a finished folder was made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Optional

from omnikit import host_records
from omnikit.errors import ActionError, InputError
from omnikit.weights import checkpoint
from omnikit.weights.convert_plan import Conversion, NewShard

MANIFEST = "omnikit-weights.json"
FORM = "compressed-tensors int-quantized, W8A8 dynamic"
_RECORDS = ".records"
_STEP = 8 << 20
_TASTE = 1 << 16


def source_print(conversion: Conversion) -> dict[str, Any]:
    """What tells one source from another: its configuration, sizes, and of each file header, first
    and last data; not its times, which a copy may not keep.
    """
    found = conversion.checkpoint
    digest = hashlib.sha256(json.dumps(found.config, sort_keys=True).encode())
    for name, size in sorted(found.sizes.items()):
        digest.update(f"{name} {size}\n".encode())
        with (found.folder / name).open("rb", buffering=0) as file:
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(header + _TASTE))
            file.seek(max(8, size - _TASTE))
            digest.update(file.read(_TASTE))
    return {"sha256": digest.hexdigest(), "bytes": sum(found.sizes.values())}


def begin(work: Path, conversion: Conversion) -> None:
    """A working folder for this source. Raises InputError: it holds one for another."""
    records = work / _RECORDS
    records.mkdir(parents=True, exist_ok=True)
    told = source_print(conversion)
    file = records / "source.json"
    kept = checkpoint.read_json(file) if file.exists() else told
    if kept != told:
        raise InputError(
            "holds a conversion of another source, not finished.",
            where=str(work),
            todo=f"choose another target, or remove this one: rm -r {work}",
        )
    host_records.write_atomically(file, json.dumps(told) + "\n")


def stamp(conversion: Conversion, shard: NewShard) -> list[Any]:
    """What a shard was made of: every file that it reads, with size and time of change."""
    files = {piece.source.file for piece in shard.pieces}
    files |= {piece.scales.file for piece in shard.pieces if piece.scales is not None}
    folder = conversion.checkpoint.folder
    found = {file: (folder / file).stat() for file in sorted(files)}
    return [[file, one.st_size, one.st_mtime_ns] for file, one in found.items()]


def done(work: Path, conversion: Conversion, shard: NewShard) -> Optional[dict[str, Any]]:
    """The record of a shard that is there and was made of the source as it is now."""
    try:
        record: dict[str, Any] = json.loads((work / _RECORDS / f"{shard.name}.json").read_text())
        size = (work / shard.name).stat().st_size
    except (OSError, ValueError):
        return None
    good = record.get("size") == size == shard.size
    return record if good and record.get("made_of") == stamp(conversion, shard) else None


def write(work: Path, shard: NewShard, record: dict[str, Any]) -> None:
    """Say that a shard is done."""
    host_records.write_atomically(work / _RECORDS / f"{shard.name}.json", json.dumps(record) + "\n")


def manifest(
    conversion: Conversion, files: dict[str, dict[str, Any]], checked: dict[str, Any]
) -> dict[str, Any]:
    """What a finished folder says of itself. files: name -> {size, sha256} of every file; checked:
    what convert_check compared.
    """
    source = source_print(conversion)
    return {
        "form": FORM,
        "method": "native",
        "source": source,
        "checked": checked,
        "files": dict(sorted(files.items())),
    }


def finished(target: Path, conversion: Conversion) -> bool:
    """Whether target is the finished conversion of this source.

    Raises InputError: it is something else that must not be overwritten.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    file = target / MANIFEST
    if not file.exists():
        raise InputError(
            f"is there already and has no {MANIFEST}: it was not made here.",
            where=str(target),
            todo="choose another target",
        )
    told = checkpoint.read_json(file)
    if told.get("source") != source_print(conversion):
        raise InputError(
            "holds the conversion of another source.",
            where=str(target),
            todo="choose another target, or remove this one",
        )
    for name, one in told["files"].items():
        path = target / name
        if not path.is_file() or path.stat().st_size != one["size"]:
            raise ActionError(
                f"{name} is missing or has another size than when it was made.",
                where=str(target),
                todo=f"remove the folder (rm -r {target}) and convert again",
            )
    return True


def forget(work: Path) -> None:
    """Remove the records: the folder is finished."""
    for file in (work / _RECORDS).iterdir():
        file.unlink()
    (work / _RECORDS).rmdir()


def sha256(path: Path, on_bytes: Optional[Callable[[int], None]] = None) -> str:
    """Of a whole file. on_bytes: called with the number of bytes after each part."""
    digest = hashlib.sha256()
    buffer = bytearray(_STEP)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            if on_bytes is not None:
                on_bytes(count)
    return digest.hexdigest()
