"""Where a conversion's result grows and ends, its room there, and what to do about a disk's no."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint import w8a8
from omnikit.weights.checkpoint.w8a8 import Conversion
from omnikit.weights.convert import records as convert_records

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
    there = [shard for shard in conversion.shards if convert_records.done(work, conversion, shard)]
    others = sum(path.stat().st_size for path in w8a8.other_files(conversion.checkpoint.folder))
    needed = conversion.size - sum(shard.size for shard in there) + others
    # The result grows beside the target, which may be another disk than one mounted at its name.
    above = next(folder for folder in (work, *work.parents) if folder.is_dir())
    free = shutil.disk_usage(above).free + convert_records.replaced(work, conversion)
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
