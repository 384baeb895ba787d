"""A question before something that runs is replaced."""

from __future__ import annotations

from pathlib import Path

from hostkit.base.errors import InputError

_TERMINAL = Path("/dev/tty")


def confirm(what: str, yes: bool) -> None:
    """Return when the answer is yes. Raises InputError when it is no or nobody can be asked.

    The terminal itself is asked: standard input may be a pipe of make or Invoke.
    """
    if yes:
        return
    todo = "say --yes to do it without being asked"
    try:
        with _TERMINAL.open("r+b", buffering=0) as terminal:
            terminal.write(f"{what}\nGo on? [y/N] ".encode())
            answer = terminal.readline().decode("utf-8", "replace").strip().lower()
    except OSError:
        nobody = "Nobody can be asked here; nothing was done."
        raise InputError(f"{what} {nobody}", todo=todo) from None
    if answer not in ("y", "yes"):
        raise InputError("nothing was done.", todo=todo)
