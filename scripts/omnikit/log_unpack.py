"""Unpack an archive of logs that came from a host: nothing in it can leave its folder."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from omnikit.errors import ActionError

_BLOCK = 1 << 20


def check_sum(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            found.update(block)
    return found.hexdigest()


def unpack(archive: Path, into: Path) -> list[str]:
    """Write the archive's files below a folder, which is made; returns their paths in it.

    Only plain files with paths that stay below the folder are taken; anything else is an
    ActionError before that member is written. Files are readable by their owner alone.
    """
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = []
    try:
        with tarfile.open(archive, mode="r:gz") as source:
            for member in source:
                path = safe_path(member)
                if path is None:
                    continue
                target = into.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                content = source.extractfile(member)
                assert content is not None
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                target.chmod(0o600)
                names.append(str(path))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ActionError(
            f"the archive cannot be unpacked: {error}.",
            where=str(archive),
            todo="see that there is room (df -h), then fetch again: invoke fetch-logs",
        ) from error
    return names


def safe_path(member: tarfile.TarInfo) -> PurePosixPath | None:
    """The member's path when it is a plain file that stays below; None for a folder."""
    if member.isdir():
        return None
    path = PurePosixPath(member.name)
    bad = path.is_absolute() or ".." in path.parts or not path.parts or "\0" in member.name
    if bad or not member.isreg():
        raise ActionError(
            f"the archive has {member.name!r}, which is no plain file below it; nothing of it"
            " is kept.",
            todo="look at the host that it came from: who else writes there?",
        )
    return path
