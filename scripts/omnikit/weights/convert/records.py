"""Where a conversion's result grows and ends, and what is written down there: shards that are done,
what a finished folder was made of. Its room, and what to do about a disk's no.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Optional

from hostkit.base import writing
from hostkit.base.errors import ActionError, InputError
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.hashes import MANIFEST, sha256
from omnikit.weights.checkpoint.w8a8 import COMPRESSED, Conversion, NewShard, other_files

_ELSEWHERE = "choose another target"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TODO = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise this user's quota",
    errno.EROFS: f"mount it writable, or {_ELSEWHERE}",
    errno.ENOTDIR: f"a part of this path is a file: {_ELSEWHERE}",
    errno.EEXIST: f"move away what is there, or {_ELSEWHERE}",
    errno.ENOTEMPTY: f"move away what is there, or {_ELSEWHERE}",
    errno.EISDIR: "move this folder away: a file is expected there",
    errno.EBUSY: f"end what uses it, or {_ELSEWHERE}",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: f"this file system or user (ulimit -f) allows no such size: {_ELSEWHERE}",
    errno.ELOOP: "this link leads to itself: name a folder",
    errno.ENOENT: "it was there before: bring it back",
    errno.EIO: "look at the disk's errors (dmesg); copy what is damaged again from where it came",
    errno.ESTALE: "mount this network file system again",
    errno.EMFILE: "allow more open files (ulimit -n)",
}
_RECORDS, LOCK, _SOURCE = ".records", ".lock", "source.json"
_TASTE = 1 << 16


def work_folder(target: Path) -> Path:
    """Where the result grows; renamed to target at the end."""
    return target.with_name(f"{target.name}.incomplete")


def settled(target: Path) -> Path:
    """Where a target that is a link really lies: a folder cannot be renamed onto a link."""
    return target.resolve() if target.is_symlink() else target


def check_places(source: Path, target: Path) -> None:
    """Raises InputError: the target lies in the source, or cannot get its name by a renaming."""
    for place in (target, work_folder(target)):
        if source.resolve() in (place.resolve(), *place.resolve().parents):
            what = "the target lies" if place == target else f"{place.name}, where it grows, lies"
            raise InputError(f"{what} in the source.", where=str(target), todo="name one beside it")
    if target.is_mount():
        raise InputError(
            "is a mount point: the finished folder cannot be renamed onto it.",
            where=str(target),
            todo=f"name a folder on it: --target {target / source.name}-W8A8",
        )
    side = target.with_name(f"{target.name}.msmodelslim")
    if side.exists() and not target.exists():
        raise InputError(
            f"a conversion by msmodelslim was begun: {side}.",
            where=str(target),
            todo="finish it with --method msmodelslim, choose another target, or remove both:"
            f" rm -r {side} {work_folder(target)}",
        )


def space_needed(conversion: Conversion, target: Path) -> tuple[int, int]:
    """Bytes that are still to be written, and bytes that are free there for them."""
    work = work_folder(settled(target))
    near = next(folder for folder in (work, *work.parents) if folder.exists())
    same_disk = near.stat().st_dev == conversion.checkpoint.folder.stat().st_dev
    kept = {
        shard.name: shard.size
        for shard in conversion.shards
        if (shard.linked and same_disk) or done(work, conversion, shard)
    }
    others = sum(path.stat().st_size for path in w8a8.other_files(conversion.checkpoint.folder))
    needed = conversion.size - sum(kept.values()) + others
    # The result grows beside the target, which may be another disk than one mounted at its name.
    above = next(folder for folder in (work, *work.parents) if folder.is_dir())
    # Files of an earlier run that this one will not use.
    replaced = [path for path in _entries(work) if path.name not in kept and path.is_file()]
    free = shutil.disk_usage(above).free + sum(path.stat().st_blocks * 512 for path in replaced)
    return needed, free


def what(error: OSError) -> str:
    """In words, without a full stop."""
    return "the disk is full" if error.errno in _FULL else str(error.strerror or error)


def todo(error: OSError, where: Path) -> str:
    """What to do before the next run."""
    if error.errno in (errno.EACCES, errno.EPERM):
        who = f"let user {os.geteuid()} read it, and write where the result goes"
        return f"{who} (look: namei -l {where})"
    return _TODO.get(error.errno or 0, "look at what is there")


def is_there(path: Path) -> bool:
    """False also where nobody may look."""
    with suppress(OSError):
        return path.exists()
    return False


@contextmanager
def before_any_change(where: Path) -> Iterator[None]:
    """What the system refuses here is wrong input: nothing has been changed yet.

    where: what it concerns when the error does not say.
    """
    try:
        yield
    except OSError as error:
        raise refused(error, where) from error


def refused(error: OSError, where: Path) -> InputError:
    """An error of the system before anything was changed."""
    place = Path(os.fsdecode(error.filename)) if error.filename else where
    return InputError(f"{what(error)}.", where=str(place), todo=f"{todo(error, place)}; run again")


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
    """A working folder for this source, with nothing in it but what is done.

    Raises InputError: see check.
    """
    for path in check(work, conversion):
        path.unlink()
    file = work / _RECORDS / _SOURCE
    file.parent.mkdir(parents=True, exist_ok=True)
    writing.write_atomically(file, json.dumps(source_print(conversion)) + "\n")


def check(work: Path, conversion: Conversion) -> list[Path]:
    """What a run that was cut left half done in the working folder; changes nothing.

    Raises InputError: it holds a conversion of another source, or what is not ours.
    """
    file = work / _RECORDS / _SOURCE
    if file.exists() and headers.read_json(file) != source_print(conversion):
        raise InputError(
            "holds a conversion of another source, not finished.",
            where=str(work),
            todo=f"choose another target, or remove this one: rm -r {work}",
        )
    return _half_done(work, conversion, ours=file.exists())


def _entries(work: Path) -> list[Path]:
    return sorted(work.iterdir()) if work.is_dir() else []


def _half_done(work: Path, conversion: Conversion, ours: bool) -> list[Path]:
    texts = {"config.json", headers.INDEX, MANIFEST, w8a8.DESCRIPTION, w8a8.OFFSETS}
    texts |= {path.name for path in other_files(conversion.checkpoint.folder)}
    shards = {shard.name: shard for shard in conversion.shards}
    parts = {f"{name}.part" for name in shards}
    found = []
    for path in _entries(work):
        name = path.name
        if name in (_RECORDS, LOCK):
            continue
        # .NAME.PID: one that was just being written.
        of = name[1:].rpartition(".")[0] if name.startswith(".") else name
        if not ours or not path.is_file() or of not in {*texts, *parts, *shards}:
            raise InputError(
                f"holds {name}, which no conversion of this source made.",
                where=str(work),
                todo=f"move it away, or remove the folder: rm -r {work}",
            )
        if name not in shards or done(work, conversion, shards[name]) is None:
            found.append(path)
    return found


def stamp(conversion: Conversion, shard: NewShard) -> list[Any]:
    """What a shard is made of: every file that it reads, with size and time of change as they were
    when the conversion was planned.
    """
    found = conversion.checkpoint
    files: list[Any] = [[file, found.sizes[file], found.changed[file]] for file in _sources(shard)]
    # Shards of before scales were rounded to bf16 are not used again.
    return files if conversion.repacked else [*files, "bf16"]


def changed_file(conversion: Conversion, shard: NewShard) -> Optional[Path]:
    """A file that a shard reads and that is not as the conversion was planned with it. Raises
    OSError.
    """
    found = conversion.checkpoint
    for file in _sources(shard):
        now = (found.folder / file).stat()
        if (now.st_size, now.st_mtime_ns) != (found.sizes[file], found.changed[file]):
            return found.folder / file
    return None


def _sources(shard: NewShard) -> list[str]:
    files = {piece.source.file for piece in shard.pieces}
    return sorted(files | {piece.scales.file for piece in shard.pieces if piece.scales is not None})


def done(work: Path, conversion: Conversion, shard: NewShard) -> Optional[dict[str, Any]]:
    """The record of a shard that is there and was made of the source as it is now."""
    try:
        record = writing.read_back(work / _RECORDS / f"{shard.name}.json")
        size = (work / shard.name).stat().st_size
    except OSError:
        return None
    good = record.get("size") == size == shard.size
    return record if good and record.get("made_of") == stamp(conversion, shard) else None


def write(work: Path, shard: NewShard, record: dict[str, Any]) -> None:
    """Say that a shard is done."""
    writing.write_atomically(work / _RECORDS / f"{shard.name}.json", json.dumps(record) + "\n")


def manifest(
    conversion: Conversion,
    files: dict[str, dict[str, Any]],
    checked: dict[str, Any],
    published: dict[str, Any],
) -> dict[str, Any]:
    """What a finished folder says of itself. files: name -> {size, sha256} of every file; checked:
    what the last look compared; published: how much of the source is as published, and where.
    """
    found = conversion.checkpoint
    changed = {name: found.changed[name] for name in found.shards}
    return {
        "form": conversion.format,
        "method": "repacked" if conversion.repacked else w8a8.OURS,
        "numbers": w8a8.numbers_of(found) if conversion.repacked else w8a8.OURS,
        "source": {**source_print(conversion), "changed_ns": changed, "published": published},
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
    told = headers.read_json(file)
    try:
        source, files = (
            dict(told["source"]),
            {name: dict(one) for name, one in told["files"].items()},
        )
        changed = source.pop("changed_ns", None)
        source.pop("published", None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "is no manifest of a conversion.", where=str(file), todo=_ANEW.format(target)
        ) from error
    if source == source_print(conversion) and form(told) != conversion.format:
        raise InputError(
            f"holds the conversion of this source in the format {form(told)}.",
            where=str(target),
            todo=f"repack it into another folder: invoke convert-weights --source {target}"
            f" --target {target}-{conversion.format} --format {conversion.format}",
        )
    if source != source_print(conversion):
        raise InputError(
            "holds the conversion of another source.",
            where=str(target),
            todo="choose another target, or remove this one",
        )
    for name, one in files.items():
        path = target / name
        if not path.is_file() or path.stat().st_size != one.get("size"):
            raise ActionError(
                f"{name} is missing or has another size than when it was made.",
                where=str(target),
                todo=_ANEW.format(target),
            )
    _unchanged_source(target, conversion, changed, files)
    return True


def form(manifest: dict[str, Any]) -> str:
    """The format that a manifest tells of; older ones have it in more words."""
    return str(manifest.get("form", COMPRESSED)).partition(" ")[0]


_ANEW = "remove the folder (rm -r {}) and convert again"


def _unchanged_source(
    target: Path, conversion: Conversion, changed: Any, files: dict[str, dict[str, Any]]
) -> None:
    """Raises ActionError: a file of the source was written after the target was made of it, so that
    nobody knows whether that is still its conversion.
    """
    folder, found = conversion.checkpoint.folder, conversion.checkpoint.changed
    for name in found:
        if isinstance(changed, dict) and changed.get(name) != found[name]:
            raise ActionError(
                f"the source's {name} was written after this was made of it, or is a copy.",
                where=str(target),
                todo="see whether it still is its conversion: invoke verify-weights --all"
                f" --source {folder} --target {target}; if not, {_ANEW.format(target)}",
            )
    for path in other_files(folder):
        if path.name in files and files[path.name].get("sha256") != sha256(path):
            raise ActionError(
                f"its {path.name} is not the source's.",
                where=str(target),
                todo=f"copy it ({path}), or {_ANEW.format(target)}",
            )


def forget(folder: Path) -> None:
    """Remove the records and the lock of a folder that is finished."""
    for file in _entries(folder / _RECORDS):
        file.unlink(missing_ok=True)
    if (folder / _RECORDS).is_dir():
        (folder / _RECORDS).rmdir()
    (folder / LOCK).unlink(missing_ok=True)
