"""A folder of safetensors files as it describes itself: configuration, index and headers; whether
all of it is there, and what tells it from another.

No tensor is read. The safetensors library hands out tensors by dtype and knows no offsets for FP8
in numpy; the conversion needs places in files, so the header (an 8-byte little-endian length, JSON,
then the data: https://huggingface.co/docs/safetensors) is read here.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import InputError, ManyErrors
from hostkit.files import regular, tensor_header

INDEX = "model.safetensors.index.json"
_ANY_INDEX = "*.safetensors.index.json"  # msmodelslim names it after its shards
SINGLE = "model.safetensors"
# Bytes of one element; all that checkpoints of this kind hold.
SIZES = {"F8_E4M3": 1, "I8": 1, "U8": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8}
_SHOWN = 3


@dataclass(frozen=True)
class Tensor:
    """shape: elements. start, end: bytes of the file, from its beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class Checkpoint:
    """shards: names of the files in their order. sizes: their bytes. changed: when each was written
    last, in ns, at the time that its header was read. index: tensor to file, as the index says;
    empty where there is none. faults: what is wrong with the files, of look() alone.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    shards: list[str]
    sizes: dict[str, int]
    changed: dict[str, int]
    index: dict[str, str] = field(default_factory=dict)
    faults: tuple[InputError, ...] = ()


def read(folder: Path) -> Checkpoint:
    """All headers of a folder, checked against its index and the files' lengths.

    Raises InputError or ManyErrors: every file that is missing, cut or says something else than the
    index.
    """
    found = look(folder)
    if found.faults:
        errors: list[Any] = list(found.faults[:20])
        raise errors[0] if len(errors) == 1 else ManyErrors(errors)
    return found


def look(folder: Path) -> Checkpoint:
    """The same of a folder that may be damaged: tensors that can be had, and faults.

    Raises InputError: no checkpoint at all, or its index cannot be read.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder.", where=str(folder), todo="name a checkpoint")
    faults: list[InputError] = []
    config: dict[str, Any] = {}
    try:
        config = read_json(folder / "config.json")
    except InputError as error:
        faults.append(error)
    try:
        weight_map = _weight_map(folder)
    except InputError as error:
        raise ManyErrors([*faults, error]) if faults else error from None
    shards = sorted(set(weight_map.values())) or [SINGLE]
    tensors: dict[str, Tensor] = {}
    sizes, changed = {}, {}
    for shard in shards:
        try:
            changed[shard] = _changed(folder / shard)  # first: what changes later is noticed
            found, sizes[shard] = read_header(folder / shard)
        except InputError as error:
            faults.append(error)
            continue
        held = {name: one for name, one in found.items() if weight_map.get(name, shard) == shard}
        strange = sorted(found.keys() - weight_map.keys()) if weight_map else []
        faults += _differences(folder / shard, weight_map, found, strange)
        tensors.update({name: one for name, one in held.items() if name not in strange})
    return Checkpoint(folder, config, tensors, shards, sizes, changed, weight_map, tuple(faults))


def _differences(
    path: Path, weight_map: dict[str, str], found: dict[str, Tensor], strange: list[str]
) -> list[InputError]:
    """Between a file and what the index says of it. strange: what the index does not name."""
    faults = []
    for name in found:
        said = weight_map.get(name, path.name)
        if name in strange or said != path.name:
            where = "the index does not name it" if name in strange else f"the index says {said}"
            faults.append(InputError(f"holds {name}, but {where}.", where=str(path)))
    lost = [name for name, file in weight_map.items() if file == path.name and name not in found]
    if lost:
        count = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        faults.append(
            InputError(
                f"has no {lost[0]}{count}, which the index says that it holds.",
                where=str(path),
                todo="download this file again",
            )
        )
    return faults


def _changed(path: Path) -> int:
    """Nanoseconds; 0 where there is no such file, which read_header says."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name to file name; empty: one file without an index."""
    index = _index(folder)
    if index is None:
        if (folder / SINGLE).is_file():
            return {}
        raise InputError(
            f"there is neither {INDEX} nor {SINGLE}.",
            where=str(folder),
            todo="name the folder of a checkpoint in safetensors files",
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("has no weight_map.", where=str(index), todo="download it again")
    for name, file in weight_map.items():
        if not is_name(file) or not file.endswith(".safetensors"):
            what = f"{ascii(name)[:80]}: {ascii(file)[:80]} is no name of a shard."
            raise InputError(what, where=str(index))
    return dict(sorted(weight_map.items()))


def is_name(told: Any) -> bool:
    """Whether a list of files names one that can lie in its own folder."""
    if not isinstance(told, str) or told in ("", ".", "..") or not {"/", "\0"}.isdisjoint(told):
        return False
    try:
        return len(told.encode()) <= 255
    except UnicodeEncodeError:  # half of a character
        return False


def _index(folder: Path) -> Optional[Path]:
    """The one that has the usual name, else the only one. Raises InputError: several."""
    if (folder / INDEX).exists():
        return folder / INDEX
    found = sorted(folder.glob(_ANY_INDEX))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(
            f"has several indexes, and none named {INDEX}: {names}.",
            where=str(folder),
            todo="keep the one that names the weights here, move the others away",
        )
    return found[0] if found else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError."""
    try:
        found = regular.parsed(path)
    except FileNotFoundError as error:
        raise InputError("is missing.", where=str(path), todo="download it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}.", where=str(path)) from error
    if not isinstance(found, dict):
        raise InputError("is no JSON object.", where=str(path))
    return found


def read_header(path: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors of a file and its size in bytes.

    Raises InputError: no such file, no safetensors, or its length is not what its header says.
    """
    again = "download this file again"
    try:
        found, size = tensor_header.read(path)
    except FileNotFoundError as error:
        raise InputError("is missing.", where=str(path), todo=again) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}.", where=str(path)) from error
    except ValueError as error:
        raise InputError(f"{error}.", where=str(path), todo=again) from error
    return {
        name: Tensor(name, one.dtype, one.shape, path.name, one.begin, one.end)
        for name, one in found.items()
    }, size


def problems(folder: Path) -> list[str]:
    """Why a folder is no whole checkpoint: index, its shards, config.json. Empty: it is whole.

    Of the shards only the headers are read: enough to see that one is cut, empty of sense, or
    another than the index says.
    """
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    found = [] if (folder / "config.json").is_file() else ["there is no config.json"]
    indexes = sorted(folder.glob(_ANY_INDEX))
    if len(indexes) != 1:
        names = ", ".join(path.name for path in indexes) or "none"
        return [*found, f"expected one {_ANY_INDEX}, found {names}"]
    try:
        weight_map = regular.parsed(indexes[0])["weight_map"]
        held: dict[str, list[str]] = {}
        for name, file in sorted(weight_map.items()):
            if not is_name(file):
                raise ValueError(f"{ascii(file)[:80]} is no file's name")
            held.setdefault(file, []).append(name)
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
        tensors, _ = read_header(shard)
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
    # Hidden ones are half written.
    texts = sorted({path.name for path in folder.glob("[!.]*.json")} | {"modeling_deepseek.py"})
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
