"""A folder of large files on this host: what its manifest says, what of it is there, what an older
version can give, and how what arrived gets its place.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Optional

from hostkit.base import writing
from hostkit.base.errors import ActionError, InputError
from hostkit.files import regular

STAGING = ".spread"  # in the folder itself, which may be a disk of its own
RECORD = "record.json"
MANIFEST = "omnikit-weights.json"  # of convert-weights
DOWNLOADED = ".download/record.json"  # of download-weights
OWN = "the record of this host"
# A folder without them is loaded by nobody.
LAST = ("config.json", "model.safetensors.index.json")
# What an engine may load although no list names it.
_LOADED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
_FICLONE = 0x40049409
_STEP = 8 << 20
Files = dict[str, dict[str, Any]]


_telling = threading.Lock()


def tell(**what: Any) -> None:
    """A line for the caller."""
    with _telling:
        print(json.dumps(what), flush=True)


@dataclass
class Meter:
    """Says every second how much of something is done."""

    what: str
    total: int
    done: int = 0
    told: float = field(default_factory=time.monotonic)

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.done += count
        if time.monotonic() - self.told >= 1:
            self.told = time.monotonic()
            tell(at=self.what, done=self.done, total=self.total)


def digest(files: Files) -> str:
    """One short word for a list of files."""
    told = sorted((name, one["size"], one.get("sha256")) for name, one in files.items())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def stamp(path: Path) -> list[int]:
    """What tells that a file was not written since: size and time. Raises OSError."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def boot() -> str:
    """Which start of the machine this is: what only the page cache had is gone after another."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def name_in(path: str) -> str:
    """A file's name below the folder that a torrent is of; of a single file, it has no folder."""
    return path.partition("/")[2] or path


# --- what this host found out about a folder, so that it need not read all of it again -----------


def _record_of(work_dir: str, folder: Path) -> Path:
    word = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(work_dir) / "spread" / f"folder-{word}.json"


def known(work_dir: str, folder: Path) -> Files:
    """Files that were hashed here and not written since: name to size and sha256."""
    told = writing.read_back(_record_of(work_dir, folder)).get("files")
    found: Files = {}
    for name, one in told.items() if isinstance(told, dict) else ():
        with suppress(OSError, KeyError, TypeError):
            if stamp(folder / name) == one["stamp"]:
                found[name] = {"size": one["stamp"][0], "sha256": one["sha256"]}
    return found


def note(work_dir: str, folder: Path, hashes: dict[str, str], whole: bool = False) -> None:
    """Keep what was found out of files, besides what is known and still holds.

    whole: these are all files that belong there.
    """
    files = {name: one["sha256"] for name, one in known(work_dir, folder).items()}
    files.update(hashes)
    told = {}
    for name, sha256 in files.items():
        with suppress(OSError):
            told[name] = {"stamp": stamp(folder / name), "sha256": sha256}
    made: dict[str, Any] = {"folder": str(folder), "files": told}
    if whole:
        made["whole"] = sorted(hashes)
    data = json.dumps(made, indent=1)
    writing.write_private(_record_of(work_dir, folder), data.encode())


# --- where the files are: the list of them, and that they are what it says ------------------------


def listed(folder: Path, work_dir: str) -> tuple[str, dict[str, str]]:
    """What says which files belong to a folder, and each one's hash as KIND:HEX ("": none).

    Raises InputError when there is no such folder, or a list that cannot be used.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder.", where=str(folder))
    if (folder / MANIFEST).is_file():
        files = _of_file(folder / MANIFEST, "sha256")
        return MANIFEST, {**{name: f"sha256:{one}" for name, one in files.items()}, MANIFEST: ""}
    if (folder / DOWNLOADED).is_file():
        return DOWNLOADED, _of_file(folder / DOWNLOADED, "hash")
    before, names = known(work_dir, folder), _names(folder)
    whole = writing.read_back(_record_of(work_dir, folder)).get("whole")
    if names and whole == names and set(names) <= set(before):
        return OWN, {name: f"sha256:{before[name]['sha256']}" for name in names}
    return "", dict.fromkeys(names, "")


def _of_file(path: Path, key: str) -> dict[str, str]:
    try:
        files = regular.parsed(path)["files"]
        found = {str(name): str(one[key]) for name, one in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"is no list of files: {error}.", where=str(path)) from error
    for name in found:
        _refuse_odd(name, path)
    return found


def _refuse_odd(name: str, where: Path) -> None:
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") or part[0] == "." for part in parts):
        raise InputError(f"names {ascii(name)[:80]}, which is no file's name.", where=str(where))


def _names(folder: Path) -> list[str]:
    """Files below a folder, without hidden ones."""
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for name in names:
            path = Path(here) / name
            if not name.startswith(".") and path.is_file():
                found.append(str(path.relative_to(folder)))
    return sorted(found)


def look(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: what is in a folder, by what it says of itself; nothing is read but lists.

    parameters: dir, work_dir. whole: all that the list names is there, with its size where known.
    version: a word for the list.
    """
    folder = Path(parameters["dir"])
    try:
        by, names = listed(folder, parameters["work_dir"])
    except InputError as error:
        return {"changed": False, "whole": False, "why": str(error), "files": 0, "bytes": 0}
    missing = [name for name in names if not (folder / name).is_file()]
    whole = not missing and "config.json" in names
    hashes = {name: one for name, one in names.items() if one}
    if missing:
        why = f"lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
    else:
        why = "" if whole else "has no config.json"
    return {
        "changed": False,
        "whole": whole,
        "why": why,
        "by": by,
        "version": hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()[:12]
        if hashes
        else "",
        "files": len(names),
        "bytes": sum((folder / name).stat().st_size for name in names if name not in missing),
    }


def offer(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: the files of a folder with their SHA-256, each held against the folder's list.

    parameters: dir, work_dir. Raises ActionError: a file is not what the list says.
    """
    folder, work_dir = Path(parameters["dir"]), parameters["work_dir"]
    by, names = listed(folder, work_dir)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ActionError(f"{missing[0]} is missing, which {by} names.", where=str(folder))
    before = known(work_dir, folder)
    todo = [name for name in names if name not in before or names[name].startswith("git:")]
    meter = Meter("hashing", sum((folder / name).stat().st_size for name in todo))
    hashes = {name: one["sha256"] for name, one in before.items() if name in names}

    def read(name: str) -> str:
        if not names[name].startswith("git:"):
            return regular.sha256(folder / name, meter.add)
        found, git = _both(folder / name, meter.add)
        if git != names[name]:
            return ""
        return found

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes.update(zip(todo, pool.map(read, todo)))
    wrong = [
        name
        for name, told in names.items()
        if not hashes[name] or (told.startswith("sha256:") and told[7:] != hashes[name])
    ]
    if wrong:
        raise ActionError(
            f"{wrong[0]} is not what {by} says"
            + (f", nor are {len(wrong) - 1} more files." if wrong[1:] else "."),
            where=str(folder),
            todo="see what is right: invoke verify-weights; nothing was given to other hosts",
        )
    if not parameters.get("dry_run"):
        note(work_dir, folder, hashes, whole=True)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": hashes[name]}
        for name in sorted(names)
    }
    return {"changed": False, "by": by, "files": files, "read": meter.done}


def _both(path: Path, passed: Callable[[int], None]) -> tuple[str, str]:
    """sha256 and git's hash of a blob, read once."""
    sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with regular.opened(path) as file:
        while block := file.read(_STEP):
            sha256.update(block)
            git.update(block)
            passed(len(block))
    return sha256.hexdigest(), f"git:{git.hexdigest()}"


# --- where they are wanted ------------------------------------------------------------------------


def compare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Job: which of the files are here, and whether the others have room. Changes nothing but the
    record of what was hashed.

    parameters: dir, files, work_dir, dry_run, port (0: not asked for), address.
    """
    folder, files = Path(parameters["dir"]), parameters["files"]
    have = present(parameters)
    lacking = {name: one["size"] for name, one in files.items() if name not in have}
    staging = folder / STAGING
    staged = sum(min(_allocated(staging / name), size) for name, size in lacking.items())
    disk = os.statvfs(next(one for one in (folder, *folder.parents) if one.exists()))
    result = {
        "changed": False,
        "have": have,
        "missing": sum(lacking.values()),
        "staged": staged,
        "free": disk.f_frsize * disk.f_bavail,
        "differs": [name for name in lacking if (folder / name).is_file()],
        "older": {name: str(place) for name, place in older(folder, files, lacking).items()},
        "strange": strange(folder, files),
        "time": time.time(),
    }
    if parameters.get("port"):
        result["taken"] = taken(listens_on(parameters["address"]), parameters["port"])
    return result


def present(parameters: dict[str, Any]) -> list[str]:
    """Files that are in their place and right; what is not known of them is read."""
    folder, files = Path(parameters["dir"]), parameters["files"]
    work_dir = parameters["work_dir"]
    before = known(work_dir, folder)
    unread = [
        name
        for name, one in files.items()
        if name not in before and _size(folder / name) == one["size"]
    ]
    meter = Meter("comparing", sum(files[name]["size"] for name in unread))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda name: regular.sha256(folder / name, meter.add), unread)
        hashes = dict(zip(unread, found))
    if hashes and not parameters.get("dry_run"):
        note(work_dir, folder, hashes)
    now = {**{name: one["sha256"] for name, one in before.items()}, **hashes}
    return [name for name, one in files.items() if now.get(name) == one["sha256"]]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def older(folder: Path, files: Files, names: Iterable[str]) -> dict[str, Path]:
    """Files of the same names in this folder or one beside it: an older version, whose pieces may
    be the same. Those of the same size come first.
    """
    beside = []
    with suppress(OSError):
        beside = sorted(one for one in folder.parent.iterdir() if one != folder and one.is_dir())
    found: dict[str, Path] = {}
    for name in names:
        places = [one / name for one in (folder, *beside) if _size(one / name) > 0]
        same = [one for one in places if _size(one) == files[name]["size"]]
        if same or places:
            found[name] = (same or places)[0]
    return found


def strange(folder: Path, files: Files) -> list[str]:
    """Files here that an engine may load, and that do not belong to it."""
    if not folder.is_dir():
        return []
    return [name for name in _names(folder) if name not in files and name.endswith(_LOADED)]


def taken(address: str, port: int) -> str:
    """Why a port cannot be listened on; "": it can."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address, port))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def listens_on(address: str) -> str:
    """The address to listen on: the host's own where it has it, else any (behind a translation)."""
    return address if address and not taken(address, 0) else "0.0.0.0"


def stage(folder: Path, files: Files, have: Iterable[str]) -> bool:
    """Put what an older version has where the transfer looks for good pieces; True when anything
    was. Those files stay as they are.
    """
    staging = folder / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    lacking = [name for name in files if name not in set(have)]
    todo = [name for name in lacking if not (staging / name).exists()]
    places = older(folder, files, todo)
    meter = Meter("copying", sum(_size(place) for place in places.values()))
    for name, place in places.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        beside = writing.beside_of(staging / name)
        try:
            _copy(place, beside, files[name]["size"], meter.add)
            beside.replace(staging / name)
        finally:
            beside.unlink(missing_ok=True)
    return bool(places)


def _copy(source: Path, target: Path, size: int, passed: Callable[[int], None]) -> None:
    """Copy a file, at most so many bytes; the disk shares the blocks where it can."""
    with regular.opened(source) as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            while block := old.read(_STEP):
                new.write(block)
                passed(len(block))
        if new.seek(0, os.SEEK_END) > size:
            new.truncate(size)


def remember(staging: Path, files: Files, pieces: Iterable[int], count: int) -> None:
    """Which pieces are there."""
    bits = bytearray(-(-count // 8))
    for piece in pieces:
        bits[piece // 8] |= 1 << piece % 8
    packed = base64.b64encode(bytes(bits)).decode()
    record = {"of": digest(files), "boot": boot(), "pieces": packed}
    with suppress(OSError):
        writing.write_atomically(staging / RECORD, json.dumps(record))


def remembered(staging: Path, files: Files, count: int) -> Optional[list[int]]:
    """The same back; None: nothing that can be relied on."""
    record = writing.read_back(staging / RECORD)
    if (record.get("of"), record.get("boot")) != (digest(files), boot()):
        return None
    try:
        bits = base64.b64decode(record["pieces"], validate=True)
    except (KeyError, ValueError, TypeError):
        return None
    if len(bits) != -(-count // 8):
        return None
    return [piece for piece in range(count) if bits[piece // 8] >> piece % 8 & 1]


def wrong(where: Path, files: Files, passed: Callable[[int], None]) -> list[str]:
    """Which files are not what their hashes say. Those that are, are on the disk afterwards."""

    def good(name: str) -> bool:
        try:
            same = (where / name).stat().st_size == files[name]["size"]
            if not same or regular.sha256(where / name, passed) != files[name]["sha256"]:
                return False
            writing.sync_folder(where / name)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [name for name, right in zip(files, pool.map(good, files)) if not right]


def clear_way(folder: Path, files: Files, names: Iterable[str], replace: bool) -> None:
    """Before files get their places: nobody shall load half of two versions."""
    if replace:
        for name in strange(folder, files):
            (folder / name).unlink(missing_ok=True)
    for name in sorted(names, key=lambda one: one not in LAST):  # those first: see LAST
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)


def placed(folder: Path, files: Files, work_dir: str) -> None:
    """All is where it belongs: keep that, and nothing else."""
    writing.sync_folder(folder)
    note(work_dir, folder, {name: one["sha256"] for name, one in files.items()}, whole=True)
    shutil.rmtree(folder / STAGING, ignore_errors=True)
