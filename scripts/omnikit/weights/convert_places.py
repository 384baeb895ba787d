"""Where a conversion's result grows and ends, and whether it has room there."""

from __future__ import annotations

import shutil
from pathlib import Path

from omnikit.errors import InputError
from omnikit.weights import convert_plan, convert_records
from omnikit.weights.convert_plan import Conversion


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
    others = sum(
        path.stat().st_size for path in convert_plan.other_files(conversion.checkpoint.folder)
    )
    needed = conversion.size - sum(shard.size for shard in there) + others
    # The result grows beside the target, which may be another disk than one mounted at its name.
    above = next(folder for folder in (work, *work.parents) if folder.is_dir())
    free = shutil.disk_usage(above).free + convert_records.replaced(work, conversion)
    return needed, free
