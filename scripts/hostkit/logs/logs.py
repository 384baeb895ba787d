"""Pack the logs of this host's nodes into one compressed archive, without the secrets in them.

Nothing but the archive is written, and the archive is removed by who fetches it, or by the next one
an hour later.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from hostkit.base.errors import ActionError
from hostkit.base.redact import Redactor, names
from hostkit.files import regular
from hostkit.logs import files as logs_files
from hostkit.logs import symptoms
from hostkit.logs.files import LogFile

_PREFIX, _SUFFIX = "omnikit-logs-", ".tar.gz"
_STALE_S = 3600  # an archive that nobody fetched
_IN_MEMORY = 4 << 20  # of a file that is read through, before it goes to disk
_TRY_ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)


def collect(parameters: dict[str, Any]) -> dict[str, Any]:
    """The job. parameters: {"work_dir", "temp_dir", "folders": {instance: log folder},
    "instances": names or null for all, "since_s": only what was written in so many last seconds or
    null, "max_file_bytes": keep only the ends of larger files, or null,
    "max_bytes": of all of them, the newest first, or null}.

    Returns path, bytes and sha256 of the archive, its files and what was left out, and why.
    """
    work_dir = Path(parameters["work_dir"])
    deployed = symptoms.read_host(work_dir)
    folders = logs_files.folders(deployed, parameters["folders"], parameters.get("instances"))
    files, left_out = logs_files.listing(folders, parameters.get("since_s"))
    files, too_much = logs_files.newest(
        files, parameters.get("max_file_bytes"), parameters.get("max_bytes")
    )
    left_out += too_much
    about = _about(work_dir, deployed)
    faults = []
    for place in _places(work_dir, parameters.get("temp_dir")):
        try:
            _remove_stale(place)
            return _pack(place, files, left_out, about, parameters)
        except OSError as error:
            if error.errno not in _TRY_ELSEWHERE:
                raise ActionError(f"the logs cannot be packed: {error}.") from error
            faults.append(f"{place}: {error.strerror}")
    raise ActionError(
        "there is no room for the archive of the logs: " + "; ".join(faults) + ".",
        todo="free some space (df -h), or fetch less: --max-mib 1, --since 1h",
    )


def _places(work_dir: Path, temp_dir: Optional[str]) -> list[Path]:
    """Where the archive may lie, the best first; only folders that are there already."""
    places = [work_dir / "jobs", work_dir, Path(tempfile.gettempdir()), Path("/dev/shm")]
    if temp_dir:
        places.insert(2, Path(temp_dir))
    return [place for place in places if place.is_dir()]


def _remove_stale(place: Path) -> None:
    """Archives of ours that nobody came for."""
    for path in place.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            about = path.lstat()
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > _STALE_S:
                path.unlink()


def _about(work_dir: Path, deployed: dict[str, Any]) -> dict[str, str]:
    """What else tells how the host is: its figures, records, host.json, the audit."""
    found = {"symptoms.json": json.dumps(symptoms.machine(work_dir, deployed), indent=1)}
    paths = [work_dir / "bundle" / "host.json", work_dir / "audit.jsonl"]
    for path in [*paths, *sorted((work_dir / "state").glob("*.json"))]:
        with suppress(OSError):
            name = f"state/{path.name}" if path.parent.name == "state" else path.name
            found[name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _pack(
    place: Path,
    files: list[LogFile],
    left_out: list[dict[str, str]],
    about: dict[str, str],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=place)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as under:
            # Level 3 packs logs nearly as small as 9 and several times as fast.
            packed = gzip.GzipFile(fileobj=under, mode="wb", compresslevel=3, mtime=0)
            with packed, tarfile.open(fileobj=packed, mode="w") as archive:
                packed_files, missed = _add_all(archive, place, files, parameters)
                for inside, text in about.items():
                    _add_text(archive, f"host/{inside}", text)
        size, sha256 = Path(name).stat().st_size, regular.sha256(Path(name))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return {
        "changed": False,
        "path": name,
        "bytes": size,
        "sha256": sha256,
        "files": packed_files,
        "left_out": left_out + missed,
        "redacted": names(),
        "time": time.time(),
        "utc_offset_s": time.localtime().tm_gmtoff,
    }


def _add_all(
    archive: tarfile.TarFile, place: Path, files: list[LogFile], parameters: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    added, missed = [], []
    for file in files:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(place)) as copy:
            redactor = Redactor()
            try:
                cut = logs_files.copy(
                    file,
                    copy,
                    redactor,
                    parameters.get("since_s"),
                    parameters.get("max_file_bytes"),
                )
            except OSError as error:
                if error.errno in _TRY_ELSEWHERE and error.filename != str(file.path):
                    raise  # the copy's fault, not the log's
                missed.append({"path": str(file.path), "why": str(error.strerror)})
                continue
            entry = tarfile.TarInfo(f"{file.instance}/{file.inside}")
            entry.size = copy.tell()
            entry.mtime = int(file.modified)
            entry.mode = 0o600
            copy.seek(0)
            archive.addfile(entry, copy)
        added.append(
            {
                "instance": file.instance,
                "path": f"{file.instance}/{file.inside}",
                "from": str(file.path),
                "bytes": entry.size,
                "original_bytes": file.size,
                "cut_bytes": cut,
                "modified": file.modified,
                "redacted_lines": redactor.count,
            }
        )
    return added, missed


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    redactor = Redactor()
    data = "".join(redactor.line(line) for line in text.splitlines(keepends=True)).encode(
        "utf-8", "replace"
    )
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))
