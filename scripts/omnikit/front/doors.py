"""Invoke's tasks, made of the scripts: a task has its script's name, words and options."""

from __future__ import annotations

import argparse
import codecs
import importlib
import re
import select
import shlex
import sys
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any, Callable, Generator, Iterable, Mapping, Optional, Sequence, Union

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError, ThreadException
from invoke.main import program
from invoke.parser import Argument
from invoke.parser.parser import ParseMachine
from invoke.program import Program
from invoke.runners import Local
from invoke.tasks import Task
from invoke.util import helpline

from hostkit.base.log import words
from omnikit.front import next_steps
from omnikit.front.script import PROJECT, choose_language, reads_chinese

SCRIPTS = Path(__file__).resolve().parents[2]
_LINE_S = 0.5  # after which a line that does not go on is shown as it is: a row of dots


class _Whole(Local):
    """Invoke's runner, with characters and lines whole, which its reads of 1000 bytes cut in two.

    What is printed and what is reported are handed on by two threads: behind half a line of one,
    the other would write its own.
    """

    def read_proc_output(
        self, reader: Callable[[int], Optional[bytes]]
    ) -> Generator[str, None, None]:
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        pipe = self.process.stdout if reader == self.read_proc_stdout else self.process.stderr
        held = ""
        while True:
            if held and not select.select([pipe], [], [], _LINE_S)[0]:
                yield held
                held = ""
            data = reader(self.read_chunk_size)
            if not data:
                break
            text = held + decoder.decode(data)
            end = text.rfind("\n") + 1
            held = text[end:]
            yield text[:end]
        yield held + decoder.decode(b"", final=True)


class _Refused(ParseError, Exit):
    """Wrong input, as Invoke prints it, and as its completion expects it."""

    def __init__(self, said: str, context: Any) -> None:
        Exit.__init__(self, code=2)
        self.args, self.context = (said,), context


def run(ctx: Context, *words: str) -> None:
    """Run a command; its exit status becomes ours."""
    ctx.config.runners.local = _Whole
    terminal = {next_steps.TERMINAL: "1"} if sys.stderr.isatty() else {}
    try:
        done = ctx.run(
            shlex.join(words), warn=True, pty=False, hide=False, in_stream=False, env=terminal
        )
    except ThreadException as error:
        if all(issubclass(thread.type, BrokenPipeError) for thread in error.exceptions):
            raise Exit(code=141) from None  # the reader (head, less) went away
        raise
    if done is not None and done.exited:
        raise Exit(code=done.exited)


class Door(Task[Any]):
    """The task of scripts/NAME.py or scripts/NAME.sh, called NAME with dashes, or by an alias."""

    def __init__(self, name: str, *aliases: str) -> None:
        places = [SCRIPTS / f"{name}{suffix}" for suffix in (".py", ".sh")]
        self.script = next(path for path in places if path.is_file())

        def start(ctx: Context, **given: Any) -> None:
            runner = sys.executable if self.script.suffix == ".py" else "bash"
            run(ctx, runner, str(self.script), *_words(self.parser(), given))

        start.__doc__ = _said(self.script)
        super().__init__(start, name=name, aliases=aliases, positional=())

    def parser(self) -> argparse.ArgumentParser:
        """The script's command line; a shell script of ours takes none."""
        if self.script.suffix == ".sh":
            return argparse.ArgumentParser(add_help=False)
        made: argparse.ArgumentParser = importlib.import_module(self.script.stem).main.parser()
        return made

    def get_arguments(self, ignore_unknown_help: Optional[bool] = None) -> list[Argument]:
        """The script's options as Invoke wants them told.

        Invoke asks all tasks before it looks at its command line. To import every script for that
        would double its start, so a task that the command line does not name has none to tell.
        """
        names = [name.replace("_", "-") for name in (self.name, *self.aliases)]
        words = program.argv[1:]
        if program.argv and not any(name in word for word in words for name in names):
            return []  # without argv no command line is read: a test asks, or the manual
        return [_argument(action) for action in _actions(self.parser())]


def _said(script: Path) -> str:
    """What a script says of itself first: a docstring, or the comment at the head of a shell's."""
    text = script.read_text(encoding="utf-8")
    if script.suffix == ".py":
        return text.split('"""', 2)[1].strip()
    comment = takewhile(lambda line: line.startswith("# "), text.splitlines()[1:])
    return "\n".join(line[2:] for line in comment)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a parser takes, without --help, which is Invoke's, and without a word's second form."""
    options = {action.dest for action in parser._actions if action.option_strings}
    return [
        action
        for action in parser._actions
        if action.dest != "help" and (action.option_strings or action.dest not in options)
    ]


def _argument(action: argparse.Action) -> Argument:
    names = [word.lstrip("-") for word in sorted(action.option_strings, key=len, reverse=True)]
    names = names or [action.dest]
    kind = list if isinstance(action, argparse._AppendAction) else str
    return Argument(
        names=names,
        attr_name=action.dest if action.dest != names[0] else None,
        kind=bool if action.nargs == 0 else kind,
        positional=not action.option_strings,
        optional=action.nargs == "?",
        help=(action.help or "") % vars(action),
    )


def _words(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> list[str]:
    """What was given to a task as words for its script; what is empty was not given."""
    words = []
    for action in _actions(parser):
        option = max(action.option_strings, key=len, default="")
        value = given.get(action.dest)
        if not isinstance(value, list):
            value = [value] if value else []
        for one in value:
            if one is True:
                words.append(option)
            else:
                words.append(f"{option}={one}" if option else one)
    return words


def collection(subjects: Mapping[str, Sequence[Union[str, Task[Any]]]]) -> Collection:
    """Invoke's tasks by subject: each is the name of a script, aliases behind it, or a task."""
    made = Collection()
    grouped = {
        subject: [one if isinstance(one, Task) else Door(*one.split()) for one in tasks]
        for subject, tasks in subjects.items()
    }
    for tasks in grouped.values():
        for task in tasks:
            made.add_task(task)

    def listed(self: Program) -> None:
        """What invoke --list prints: by subject, in the order in which a user needs them."""
        width = max(map(len, made.task_names))
        known = _in_chinese(grouped) if reads_chinese() else {}
        for subject, tasks in grouped.items():
            rows = [(made.transform(task.name).ljust(width), task) for task in tasks]
            if known:
                print(f"{known[subject]}：\n")
                print("\n".join(f"  {name}   {known[name.strip()]}" for name, _ in rows) + "\n")
            else:
                print(f"{subject}:\n")
                self.print_columns([(name, _line(task)) for name, task in rows])

    def refused(self: Any, message: str) -> None:
        """What Invoke does not understand is wrong input, with what is like it."""
        choose_language()
        what = re.sub("<Argument: (\\S+).*>", r"--\1", message)
        todo = "invoke --list; invoke --help TASK"
        if unknown := re.fullmatch("No idea what '(.*)' is!", message):
            name = unknown[1]
            known = (self.context or self.initial).flags if name[0] == "-" else made.task_names
            what = f"there is no option {name}." if name[0] == "-" else f"there is no task {name}."
            todo = next((f"is it {one}?" for one in get_close_matches(name, known, 1)), todo)
        raise _Refused(words(f"error: {what}\n  What to do: {todo}"), self.context)

    # Invoke has no settings for these; who starts its program is Invoke itself.
    Program.list_flat = listed  # type: ignore[method-assign]
    ParseMachine.error = refused  # type: ignore[assignment, method-assign]
    return made


def _in_chinese(subjects: Iterable[str]) -> dict[str, str]:
    """What each task does, as the manual says it, and the subjects."""
    import yaml  # late: not for other languages

    from omnikit.front.chinese import catalogue

    text = (PROJECT / "docs" / "tasks.zh-CN.yaml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text), **{one: catalogue()[one] for one in subjects}}


def _line(task: Task[Any]) -> str:
    """What a task does, with its aliases."""
    aliases = [f"(Also: {alias})" for alias in task.aliases]
    return " ".join([helpline(task) or "", *aliases])
