"""What a conversion still has to do and how long it will take, before anything is changed."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError
from hostkit.base.log import duration, size_text
from hostkit.base.writing import beside_of
from omnikit.weights.checkpoint import headers, w8a8
from omnikit.weights.checkpoint.hashes import MANIFEST
from omnikit.weights.checkpoint.w8a8 import COPY, QUANTISE, SCALE_INV, WIDEN, Conversion, NewShard
from omnikit.weights.convert import records as convert_records

_SAMPLE = 64 << 20  # of the source, or two parts for each thread
_PART = 4 << 20
_LEAST = 1 << 20  # of free space: below it nothing is measured


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
        folders = convert_records.work_folder(self.target).parents
        return next(folder for folder in folders if folder.exists())


def look(conversion: Conversion, target: Path) -> Rest:
    """Compare the working folder with what is to be there. Raises OSError: a file of the source
    that cannot be read, said now and not after hours. Raises InputError: what is there is not ours.
    """
    folder, work = conversion.checkpoint.folder, convert_records.work_folder(target)
    others = tuple(w8a8.other_files(folder))
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
        *convert_records.space_needed(conversion, target),
    )


def tensors(rest: Rest) -> dict[str, int]:
    """How many tensors that are still to be made become what."""
    pieces = [piece for shard in rest.left if not shard.linked for piece in shard.pieces]
    found = Counter(piece.what for piece in pieces)
    return {what: found[what] for what in (QUANTISE, WIDEN, COPY) if found[what]}


def scales_left_out(rest: Rest) -> int:
    """How many block scales of the source the result does not have."""
    return sum(name.endswith(f".weight{SCALE_INV}") for name in rest.conversion.checkpoint.tensors)


def lines(rest: Rest) -> list[str]:
    """Every action in its order, for a person."""
    conversion, work = rest.conversion, convert_records.work_folder(rest.target)
    counts = ", ".join(f"{count} tensors {what}" for what, count in tensors(rest).items())
    names = ", ".join(path.name for path in rest.others)
    count = sum(len(shard.tensors) for shard in conversion.shards)
    found = [f"make the folder {work}"]
    if work.exists():
        found = [f"go on in {work}: {len(rest.kept)} files are kept, their content is checked"]
    linked = sum(shard.linked for shard in rest.left)
    if linked:
        found.append(f"take {linked} files of weights as they are: a hard link, on one disk")
    if len(rest.left) > linked:
        found.append(f"write {len(rest.left) - linked} files of weights: {counts}")
    if conversion.offsets()[0]:
        offsets = f"the offset 0 of each row of {len(conversion.quantised())} matrices"
        found.append(f"write {w8a8.OFFSETS}: {offsets}")
    if conversion.block:
        found.append(f"leave out {scales_left_out(rest)} block scales: each row has its own scale")
    found.append(f"write config.json: {_config_edit(conversion)}")
    if conversion.format == w8a8.ASCEND:
        found.append(f"write {w8a8.DESCRIPTION}: what each tensor is")
    found.append(f"write {headers.INDEX}: {count} tensors in {len(conversion.shards)} files")
    if rest.others:
        found.append(f"copy {len(rest.others)} files as they are: {names}")
    found.append(f"compare the result with the source, write {MANIFEST} (hashes)")
    found.append(f"rename {work} to {rest.target}")
    return found


def _config_edit(conversion: Conversion) -> str:
    old = conversion.checkpoint.config.get("quantization_config")
    new = conversion.config.get("quantization_config")
    if new is None:
        return "without a quantization_config" + (f" ({old['quant_method']} before)" if old else "")
    before = f"{old['quant_method']} of quantization_config becomes" if old else "it gets"
    kinds = {name.rpartition(".")[2] for name in new["ignore"]}
    kind = kinds.pop() if len(kinds) == 1 else "matrices"
    made = f"{new['quant_method']} {new['format']}, {len(new['ignore'])} {kind} not quantised"
    return f"{before} {made}" if old else f"{before} a quantization_config, {made}"


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
    start: float,
    threads: int,
    as_json: bool,
) -> int:
    """Print it; returns 0. result: what is known already, for JSON. start: the seconds that a run
    takes before it converts.

    Raises InputError, after all is printed: too little space, or a target that cannot be written.
    """
    result.update(_facts(rest), threads=threads)
    if not as_json:  # at once: what follows takes a while, and may fail
        print("\n".join(_head(rest, result)), flush=True)
    error = no_space(rest) if rest.needed > rest.free else None
    result["result"] = "not enough space" if error else "would be converted"
    try:
        result["estimate"] = _estimate(rest, start, threads)
    except OSError as fault:
        error, result["result"] = convert_records.refused(fault, rest.near), "cannot be converted"
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
        "tensors": tensors(rest),
        "scales_left_out": scales_left_out(rest),
        "files_copied": [path.name for path in rest.others],
        "actions": lines(rest),
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


def _estimate(rest: Rest, start: float, threads: int) -> Optional[dict[str, float]]:
    if not any(not shard.linked for shard in rest.left or rest.kept):
        return None  # it is read once, to be hashed
    found = rate(rest, threads)
    if found is None:
        return None
    kept = sum(one.size for one in rest.kept)  # read and hashed again
    size = rest.source_bytes + kept + sum(path.stat().st_size for path in rest.others)
    return {"rate": found, "start": round(start, 3), "seconds": start + size / found}


def _time(rest: Rest, result: dict[str, Any]) -> str:
    found = result["estimate"]
    if found is None and rest.conversion.repacked:
        return "time: what it takes to read the files once, for their hashes"
    if found is None:
        return f"time: not measured, too little space is free in {rest.near}"
    rate = f"{result['threads']} threads, {size_text(found['rate'])}/s"
    return f"time: about {duration(found['seconds'])} with {rate} of the source"


def rate(rest: Rest, threads: int) -> Optional[float]:
    """Bytes of the source that this machine converts per second, from reading until the result is
    on the disk. None where there is too little space to measure.

    Converts parts by chance, so that a second measurement does not find in memory what the first
    has read, into a file beside the target, and removes it. Raises OSError, and ActionError: the
    source is damaged.
    """
    sample = min(max(_SAMPLE, 2 * threads * _PART), rest.free // 2 // _LEAST * _LEAST)
    if sample < _LEAST:
        return None
    path = beside_of(rest.near / "omnikit-write")
    try:
        return _measured(rest, threads, sample, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a quota, which the free space hides
            return None
        place = error.filename if error.filename != str(path) else None
        raise OSError(error.errno, error.strerror, place or str(rest.near)) from error
    finally:
        with suppress(OSError):  # it may be why nothing was written, and is the folder's matter
            path.unlink()


def _measured(rest: Rest, threads: int, sample: int, path: Path) -> float:
    # Late: numpy takes time to import, and sizes and actions need none of it.
    from omnikit.weights.convert import shard as convert_shard
    from omnikit.weights.convert.shard import ALIGN, DirectFile

    folder, size = rest.conversion.checkpoint.folder, min(_PART, sample)
    shards = [one for one in rest.left or rest.kept if not one.linked]
    pieces = [piece for one in shards for piece in one.pieces]
    chosen = random.choices(pieces, [one.source.size for one in pieces], k=sample // size)
    parts = [random.choice(list(convert_shard.cut(piece, size))) for piece in chosen]
    scales = [convert_shard.scales_of(folder, piece) for piece in chosen]
    # A part's result may be twice as large (bf16 of FP8), and lies in memory as in its own file.
    slot = (2 * max(part.size for part in parts) // ALIGN + 2) * ALIGN
    file = DirectFile(path, slot * len(parts))

    def one(number: int) -> int:
        rows = parts[number]
        with (folder / rows.piece.source.file).open("rb", buffering=0) as source:
            made = convert_shard.convert(
                rows, rest.conversion.block, scales[number], source.fileno()
            )
        hashlib.sha256(made.data).digest()
        file.write(slot * number + made.start % ALIGN, made.data)
        return rows.size

    try:
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            count = sum(pool.map(one, range(len(parts))))
            file.finish()
            return count / max(1e-9, time.perf_counter() - began)
    finally:
        file.close()
