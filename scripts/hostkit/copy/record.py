"""What stands beside a copy of a source tree: which source it is, whether it is whole, an index.

Standard library only: this module runs on the hosts.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Optional

from hostkit.base.writing import write_atomically
from hostkit.copy import tree
from hostkit.copy.tree import Index, Manifest

RECORD, INDEX = f"{tree.OURS}json", f"{tree.OURS}index.json"
Record = dict[str, Any]


def read(folder: str) -> Optional[Record]:
    """The record of a copy; None when this folder is none.

    Keys: complete, source, revision, digest, at, files. A copy that is not complete was cut off:
    nothing should be installed from it.
    """
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (
        record
        if isinstance(record, dict) and {"complete", "digest", "files"} <= set(record)
        else None
    )


def files(record: Record) -> Manifest:
    """What is in the copy."""
    return tree.from_json(record["files"])


def changed(before: Record, after: Record) -> tuple[str, ...]:
    """The paths that differ between two records, for example of the last installation and now."""
    return tree.compare(files(after), files(before)).all


def index(folder: str) -> Index:
    """What the files looked like when they were read last; empty when that is not known."""
    try:
        found = json.loads((Path(folder) / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_index(folder: str, made: Index) -> None:
    """Write the index."""
    write_atomically(Path(folder) / INDEX, json.dumps(made) + "\n")


def start(folder: str, source: Record, wanted: Manifest, sent: tuple[str, ...]) -> None:
    """Write that a transfer is under way, and what it brings."""
    record = {**_described(source, wanted), "complete": False, "sent": sent}
    write_atomically(Path(folder) / RECORD, json.dumps(record) + "\n")


def complete(
    folder: str, old: Optional[Record], source: Record, wanted: Manifest, made: Index
) -> None:
    """Write that the copy is whole, where that is not written already."""
    new = json.loads(json.dumps({**_described(source, wanted), "complete": True}))
    if {**(old or {}), "at": new["at"]} != new:
        write_atomically(Path(folder) / RECORD, json.dumps(new) + "\n")
    if made != index(folder):
        write_index(folder, made)


def _described(source: Record, wanted: Manifest) -> Record:
    return {
        "source": source["source"],
        "revision": source["revision"],
        "digest": source["digest"],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": wanted,
    }
