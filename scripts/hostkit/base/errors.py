"""The two ways a command can fail, each with what a person needs to go on."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOSPC: "free some space (df -h, df -i), then again",
    errno.EDQUOT: "free some space, or ask for a larger quota, then again",
    errno.EROFS: "see why it is read-only (dmesg), mount it to be written, then again",
    errno.EIO: "see what the disk reports (dmesg), then again",
    errno.EACCES: "check the rights of this path and of the folders above it",
    errno.EPERM: "check the rights of this path and of the folders above it",
}
_PATHS = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class ToolkitError(Exception):
    """A failure that is shown as text, never as a traceback.

    what  -- a full sentence: what is wrong, with found beside expected.
    where -- file:line, option, host or URL that it concerns, if any.
    todo  -- what to do next, a command where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, todo: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  What to do: {self.todo}" if self.todo else text


class InputError(ToolkitError):
    """The request itself is wrong (configuration, options, precondition): nothing was changed."""

    exit_code = 2


class ActionError(ToolkitError):
    """The request was fine, carrying it out failed."""

    exit_code = 1


class ManyErrors(InputError):
    """Several input errors found in one pass, shown together so that one edit mends all."""

    def __init__(self, errors: list[ToolkitError]) -> None:
        self.errors = errors
        super().__init__("\n".join(str(e) for e in errors))


def of_disk(error: OSError) -> ActionError | None:
    """What a disk or its rights refused, as an error for people; None: it is something else."""
    if error.errno not in _REMEDIES and error.errno not in _PATHS:
        return None
    where = error.filename if isinstance(error.filename, (str, bytes)) else None
    return ActionError(
        f"{error.strerror}.",
        where=where.decode(errors="replace") if isinstance(where, bytes) else where,
        todo=_REMEDIES.get(error.errno, "check this path"),
    )
