"""A script of the control host: its command line, and the Python that it goes on in."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Callable, NamedTuple, Optional, Sequence

from hostkit.base import cli
from hostkit.base.errors import InputError
from hostkit.base.log import speak
from omnikit.front import next_steps

PROJECT = Path(__file__).resolve().parents[3]
OWN = PROJECT / ".venv"
# Whoever finished installing into a virtual environment leaves it there.
STAMP = ".toolkit-installed"
PACKAGES = ("pydantic", "yaml")
_WENT_ON = "_OMNIKIT_WENT_ON"


class Script(NamedTuple):
    """What scripts/NAME.py is; called with the words of its command line, it runs.

    body: does it, late imports first, and returns the exit code.
    arguments: adds its options to a parser.
    bare: whether it needs no packages, so that any Python will do.
    """

    doc: Optional[str]
    body: Callable[[argparse.Namespace], int]
    arguments: Callable[[argparse.ArgumentParser], None]
    example: str
    bare: Callable[[argparse.Namespace], bool] = lambda given: False

    def parser(self) -> argparse.ArgumentParser:
        """Its command line."""
        made = cli.parser(self.doc or "", example=self.example)
        self.arguments(made)
        return made

    def __call__(self, argv: Optional[Sequence[str]] = None) -> int:
        """Parse, run, return the exit code. Without argv: the command line of this process."""

        def body(given: argparse.Namespace) -> int:
            if argv is None and not self.bare(given):
                go_on()
            try:
                code = self.body(given)
                next_steps.tell(Path(self.body.__code__.co_filename).stem, given, code)
                return code
            except ModuleNotFoundError as error:
                if given.verbose or str(error.name).startswith(("omnikit", "hostkit")):
                    raise  # a mistake of ours
                raise InputError(
                    f"{sys.executable} has no module {error.name}.",
                    todo=f"run it with {OWN}/bin/python (make -C {quote(str(PROJECT))} makes that)",
                ) from error

        choose_language()
        return cli.run_main(body, self.parser(), argv)


def reads_chinese() -> bool:
    """By OMNIKIT_LANGUAGE, else by the locale."""
    names = ("OMNIKIT_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    return next((os.environ[one] for one in names if os.environ.get(one)), "").startswith("zh")


def choose_language() -> None:
    """Have this process speak the user's."""
    if reads_chinese():
        with suppress(ModuleNotFoundError):  # before make
            from omnikit.front import chinese

            speak(chinese.Speaker(chinese.catalogue()))


def always_bare(given: argparse.Namespace) -> bool:
    """For scripts that never need a package."""
    return True


def go_on(own: Path = OWN) -> None:
    """Have the toolkit's own Python run this command line instead, unless this one will do.

    Comes back where this Python belongs to a finished environment of the toolkit, or has the
    packages while there is no such environment (a container image). Raises InputError.
    """
    # A process keeps its number: what went on once does not again, whatever that Python is.
    went_on = os.environ.pop(_WENT_ON, "") == str(os.getpid())
    if went_on or (Path(sys.prefix) / STAMP).is_file():
        return
    python = own / "bin" / "python"
    if (own / STAMP).is_file() and os.access(python, os.X_OK):
        os.environ[_WENT_ON] = str(os.getpid())
        os.execv(python, [str(python), *sys.argv])
    if not all(map(find_spec, PACKAGES)):
        state = "is not finished" if own.exists() else "is not made yet"
        raise InputError(
            f"the toolkit's own Python environment, {own}, {state}.",
            todo=f"make -C {quote(str(PROJECT))} (a minute, once); then the same command again",
        )
