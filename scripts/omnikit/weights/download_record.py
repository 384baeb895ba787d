"""What earlier runs have fetched into a folder, kept in its staging folder."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omnikit import host_records
from omnikit.weights.download_types import Listing, RemoteFile, staging


@dataclass
class Record:
    """files: name to size, mtime_ns, identity (of the source) and hash (of the content)."""

    target: Path
    origin: str = ""
    revision: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def entry(self, name: str) -> Optional[dict[str, Any]]:
        """What is known of a file, if any."""
        return self.files.get(name)

    def untouched(self, name: str) -> bool:
        """Whether a file is still as it was when it was verified: its size and time."""
        entry = self.files.get(name)
        try:
            status = (self.target / name).stat()
        except OSError:
            return False
        return bool(entry) and (status.st_size, status.st_mtime_ns) == (
            (entry or {})["size"],
            (entry or {})["mtime_ns"],
        )

    def put(self, file: RemoteFile, found: str) -> None:
        """A file of the target is verified; found: its hash. On the disk at once."""
        with self.lock:
            self.note(file, found)
            self.write()

    def note(self, file: RemoteFile, found: str) -> None:
        """The same in memory; write stores it."""
        status = (self.target / file.name).stat()
        self.files[file.name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "identity": file.identity,
            "hash": found,
        }

    def of_source(self, listing: Listing) -> None:
        """Name the source that the folder has from now on."""
        self.origin, self.revision = listing.origin, listing.revision

    def write(self) -> None:
        """Store it."""
        data = {"origin": self.origin, "revision": self.revision, "files": self.files}
        folder = staging(self.target)
        folder.mkdir(parents=True, exist_ok=True)
        host_records.write_atomically(folder / "record.json", json.dumps(data, indent=1) + "\n")


def read(target: Path) -> Record:
    """The record of a folder; an empty one when there is none, or none that can be used.

    Without a record nothing is lost: the files are read and compared again.
    """
    record = Record(target)
    try:
        data = json.loads((staging(target) / "record.json").read_text(encoding="utf-8"))
        record.origin, record.revision = str(data["origin"]), str(data["revision"])
        for name, entry in data["files"].items():
            keys = ("size", "mtime_ns", "identity", "hash")
            record.files[str(name)] = {key: entry[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record(target)
    return record
