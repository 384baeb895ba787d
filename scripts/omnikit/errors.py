"""The two ways a command can fail, each with what a person needs to go on.

Standard library only: this module also runs on the hosts.
"""

from __future__ import annotations


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
