"""What every script's command line shares: exit codes, error output, help with an example."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

from hostkit.base.errors import InputError, ToolkitError, of_disk
from hostkit.base.log import as_it_is, for_people, for_programs, words
from hostkit.base.run import as_interrupt
from hostkit.base.values import whole

# Objects between two looks for cycles. Modules and the configuration make a great many that all
# stay; at the default of 700, looking through them again and again is a sixth of a script's start.
_COLLECT_AFTER = 50_000
_TERMINAL = Path("/dev/tty")
EXIT_CODES = "exit codes: 0 done, 1 failed, 2 wrong input or precondition (nothing changed)"


def parser(doc: str, *, example: str) -> argparse.ArgumentParser:
    """An argument parser whose help shows the script's docstring and a pasteable example."""
    made = argparse.ArgumentParser(
        description=doc.strip(),
        epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("-v", "--verbose", action="store_true", help="show tracebacks and details")
    return made


def positive(text: str) -> int:
    """An option's value: a whole number above 0."""
    number = whole(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


def run_main(
    body: Callable[[argparse.Namespace], int],
    made: argparse.ArgumentParser,
    argv: Optional[Sequence[str]] = None,
) -> int:
    """Parse, call body, turn a ToolkitError into text on standard error and its exit code."""
    gc.set_threshold(_COLLECT_AFTER)
    with for_people():
        with as_it_is():
            options = made.parse_args(argv)
        if getattr(options, "json", False):
            for_programs()
        try:
            return _run(body, options)
        except Exception as error:  # a mistake of ours, or -v: shown here, so that it is shown()
            import traceback

            traceback.print_exc()
            return error.exit_code if isinstance(error, ToolkitError) else 1


def _run(body: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        with as_interrupt():
            return body(options)
    except ToolkitError as error:
        return _failed(error, options.verbose)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) went away
        sys.stderr.close()
        return 141
    except OSError as error:
        refused = of_disk(error)
        if refused is None:
            raise
        return _failed(refused, options.verbose)


def _failed(error: ToolkitError, verbose: bool) -> int:
    if verbose:
        raise error
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def confirm(what: str, yes: bool) -> None:
    """Return when the answer is yes. Raises InputError when it is no or nobody can be asked.

    The terminal itself is asked: standard input may be a pipe of make or Invoke.
    """
    if yes:
        return
    todo = "say --yes to do it without being asked"
    try:
        with _TERMINAL.open("r+b", buffering=0) as terminal:
            terminal.write(words(f"{what}\nGo on? [y/N] ").encode())
            answer = terminal.readline().decode("utf-8", "replace").strip().lower()
    except OSError:
        nobody = "Nobody can be asked here; nothing was done."
        raise InputError(f"{what} {nobody}", todo=todo) from None
    if answer not in ("y", "yes"):
        raise InputError("nothing was done.", todo=todo)


def ask(question: str, option: str, default: str) -> str:
    """The answer at the terminal; an empty one is the default. Raises InputError where nobody is.

    option: what a command line says instead.
    """
    shown = f" [{default}]" if default else ""
    try:
        with _TERMINAL.open("r+b", buffering=0) as terminal:
            terminal.write(f"{words(question)}{shown}: ".encode())
            return terminal.readline().decode("utf-8", "replace").strip() or default
    except OSError:
        raise InputError(f"nobody can be asked here: {question}.", todo=f"say {option}") from None
