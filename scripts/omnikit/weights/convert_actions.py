"""What a conversion still has to do, before anything is changed: files, tensors, edits, names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from omnikit.weights import checkpoint, convert_places, convert_plan, convert_records
from omnikit.weights.convert_layout import COPY, QUANTISE, SCALE_INV, WIDEN, NewShard
from omnikit.weights.convert_plan import Conversion


@dataclass(frozen=True)
class Rest:
    """left: new files still to be made. kept: those of an earlier run. others: copied as they are.

    needed, free: bytes still to be written, and free where they go.
    """

    conversion: Conversion
    target: Path
    left: tuple[NewShard, ...]
    kept: tuple[NewShard, ...]
    others: tuple[Path, ...]
    needed: int
    free: int

    @property
    def source_bytes(self) -> int:
        """Bytes of the source that are still to be read."""
        return sum(piece.source.size for shard in self.left for piece in shard.pieces)

    @property
    def near(self) -> Path:
        """What exists of the folders above the target; may be a file, then nothing can be made."""
        folders = convert_places.work_folder(self.target).parents
        return next(folder for folder in folders if folder.exists())


def look(conversion: Conversion, target: Path) -> Rest:
    """Compare the working folder with what is to be there. Raises OSError: a file of the source
    that cannot be read, said now and not after hours. Raises InputError: what is there is not ours.
    """
    folder, work = conversion.checkpoint.folder, convert_places.work_folder(target)
    others = tuple(convert_plan.other_files(folder))
    shards = [folder / shard for shard in conversion.checkpoint.shards]
    for path in (*shards, *others):
        with path.open("rb") as file:
            file.read(1)
    convert_records.check(work, conversion)
    kept = {one.name for one in conversion.shards if convert_records.done(work, conversion, one)}
    return Rest(
        conversion,
        target,
        tuple(one for one in conversion.shards if one.name not in kept),
        tuple(one for one in conversion.shards if one.name in kept),
        others,
        *convert_places.space_needed(conversion, target),
    )


def tensors(rest: Rest) -> dict[str, int]:
    """How many tensors that are still to be made become what."""
    found = Counter(piece.what for shard in rest.left for piece in shard.pieces)
    return {what: found[what] for what in (QUANTISE, WIDEN, COPY) if found[what]}


def scales_left_out(rest: Rest) -> int:
    """How many block scales of the source the result does not have."""
    return sum(name.endswith(f".weight{SCALE_INV}") for name in rest.conversion.checkpoint.tensors)


def lines(rest: Rest) -> list[str]:
    """Every action in its order, for a person."""
    conversion, work = rest.conversion, convert_places.work_folder(rest.target)
    counts = ", ".join(f"{count} tensors {what}" for what, count in tensors(rest).items())
    names = ", ".join(path.name for path in rest.others)
    count = sum(len(shard.tensors) for shard in conversion.shards)
    found = [f"make the folder {work}"]
    if work.exists():
        found = [f"go on in {work}: {len(rest.kept)} files are kept, their content is checked"]
    if rest.left:
        found.append(f"write {len(rest.left)} files of weights: {counts}")
    if conversion.block:
        found.append(f"leave out {scales_left_out(rest)} block scales: each row has its own scale")
    found.append(f"write config.json: {_config_edit(conversion)}")
    found.append(f"write {checkpoint.INDEX}: {count} tensors in {len(conversion.shards)} files")
    if rest.others:
        found.append(f"copy {len(rest.others)} files as they are: {names}")
    found.append(f"compare the result with the source, write {convert_plan.MANIFEST} (hashes)")
    found.append(f"rename {work} to {rest.target}")
    return found


def _config_edit(conversion: Conversion) -> str:
    old = conversion.checkpoint.config.get("quantization_config")
    new = conversion.config["quantization_config"]
    before = f"{old['quant_method']} of quantization_config becomes" if old else "it gets"
    made = f"{new['quant_method']} {new['format']}, {len(new['ignore'])} kv_b_proj not quantised"
    return f"{before} {made}" if old else f"{before} a quantization_config, {made}"
