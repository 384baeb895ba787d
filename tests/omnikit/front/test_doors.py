"""Every task is a script: the same name, the same options, what is given reaches the script."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from invoke.collection import Collection
from invoke.context import Context, MockContext
from invoke.loader import FilesystemLoader
from invoke.parser import Parser, ParserContext

from omnikit.front.doors import Door, run

ROOT = Path(__file__).resolve().parents[3]
COLLECTION = Collection.from_module(FilesystemLoader(start=str(ROOT)).load("tasks")[0])
DOORS: dict[str, Door] = {
    name: task for name, task in COLLECTION.tasks.items() if isinstance(task, Door)
}
# They run what is in tests/ and benchmarks/.
OTHER_TASKS = {"test", "test-fast", "bench"}
# For hosts, or in the stead of programs of omni-infer: see docs/tasks.md.
NO_TASKS = {
    *("check_placement", "gen_ranktable", "host_agent", "launch_proxy", "launch_servers"),
    *("install_bundle", "omni_cli", "setup_toolkit", "wait_for_ray"),
}
each_door = pytest.mark.parametrize(
    "name", [n for n, d in DOORS.items() if d.script.suffix == ".py"]
)


def test_every_script_is_the_task_of_its_name() -> None:
    scripts = {
        path.stem
        for path in (ROOT / "scripts").glob("[a-z]*.*")
        if path.suffix in (".py", ".sh") and not path.is_symlink()
    }
    assert {name.replace("-", "_") for name in DOORS} == scripts - NO_TASKS
    assert {name: door.script.stem for name, door in DOORS.items()} == {
        name: name.replace("-", "_") for name in DOORS
    }
    assert set(COLLECTION.tasks) - set(DOORS) == OTHER_TASKS
    said = (ROOT / "docs" / "tasks.md").read_text("utf-8").partition("Scripts that are no tasks")[2]
    assert all(f"scripts/{name}." in said for name in NO_TASKS)


def test_a_character_of_several_bytes_is_never_cut(capfd: pytest.CaptureFixture[str]) -> None:
    said = "x" + "部署" * 2000
    run(Context(), sys.executable, "-c", f"print({said!r})")
    assert capfd.readouterr().out.strip() == said


def test_lines_stay_whole_where_a_command_prints_and_reports_at_once(tmp_path: Path) -> None:
    """Both in one terminal or file: what was torn read "[ curl ... 3.9 s] ready"."""
    said = (
        "import sys\n"
        "for _ in range(2000):\n"
        f"    print({'p' * 70!r}); print({'r' * 90!r}, file=sys.stderr)"
    )
    lines = through_a_task(tmp_path / "out", said, line_s=600).splitlines()
    assert len(lines) == 4000 and set(lines) == {"p" * 70, "r" * 90}


def test_a_row_of_dots_is_seen_as_it_grows(tmp_path: Path) -> None:
    """The command ends only when its dots, without an end of line, are shown."""
    out = tmp_path / "out"
    said = (
        "import pathlib, sys, time\n"
        "print('...', end='', flush=True)\n"
        f"while '...' not in pathlib.Path({str(out)!r}).read_text(): time.sleep(0.02)"
    )
    assert through_a_task(out, said, line_s=0.1) == "..."


def through_a_task(out: Path, said: str, line_s: float) -> str:
    """What a Python program prints and reports, as a task hands it on into one file."""
    code = "import sys; from invoke.context import Context; from omnikit.front import doors\n"
    code += f"doors._LINE_S = {line_s}; doors.run(Context(), sys.executable, '-c', sys.argv[1])"
    with out.open("w") as file:
        subprocess.run(
            [sys.executable, "-c", code, said],
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            stdout=file,
            stderr=file,
            check=True,
            timeout=60,
        )
    return out.read_text()


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    yield from (action for action in parser._actions if action.dest != "help")


@each_door
def test_a_task_takes_the_options_of_its_script_and_says_the_same_of_them(name: str) -> None:
    door = DOORS[name]
    context = context_of(name)
    wanted = {word for one in options(door.parser()) for word in one.option_strings}
    words = {f"--{one.dest}" for one in options(door.parser()) if one.required}
    assert set(context.flags) | set(context.flags.aliases) == wanted | words
    help_of_script = " ".join(door.parser().format_help().split()).replace("- ", "-")
    for _, text in context.help_tuples():
        assert " ".join(str(text).split()).replace("- ", "-") in help_of_script


def context_of(name: str) -> ParserContext:
    """What Invoke's parser knows of a task."""
    return ParserContext(name=name, args=DOORS[name].get_arguments())


def sample(action: argparse.Action) -> str:
    """A value that an option takes."""
    if action.choices:
        return str(next(iter(action.choices)))
    for word in ("2", "2.5", "2h", "host:2"):
        try:
            (action.type or str)(word)  # type: ignore[operator]
            return word
        except (argparse.ArgumentTypeError, ValueError):
            continue
    raise AssertionError(f"no sample for {action}")


@each_door
def test_every_option_that_a_task_is_given_reaches_its_script(name: str) -> None:
    parser = DOORS[name].parser()
    needed = [one for one in options(parser) if one.required]
    for one in options(parser):
        for option in one.option_strings:
            given = [option] if one.nargs == 0 else [option, sample(one)]
            if isinstance(one.default, list):
                given *= 2
            for other in needed:
                if other != one:
                    given = [*other.option_strings[-1:], sample(other), *given]
            assert parser.parse_args(started(name, given)) == parser.parse_args(given)


def started(name: str, words: list[str]) -> list[str]:
    """What a task starts its script with."""
    (asked,) = Parser(contexts=[context_of(name)]).parse_argv([name, *words])
    context: Any = MockContext(run=True)
    DOORS[name].body(context, **asked.as_kwargs)
    runner, script, *rest = shlex.split(context.run.call_args.args[0])
    assert (runner, script) == (sys.executable, str(DOORS[name].script))
    return rest


def test_a_word_may_be_given_as_an_option_too() -> None:
    for name, words in {"start-container": ["IMAGE", "NAME"], "pull-image": ["IMAGE"]}.items():
        parser = DOORS[name].parser()
        given = [word for one in words for word in (f"--{one.lower()}", one)]
        assert parser.parse_args(words) == parser.parse_args(given)
        assert parser.parse_args(started(name, given)) == parser.parse_args(words)


def invoke(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "what", "todo"),
    [
        ("stauts", "there is no task stauts.", "is it status?"),
        ("status --enviroment=x", "there is no option --enviroment.", "is it --environment?"),
        ("--lst", "there is no option --lst.", "is it --list?"),
        ("nothing-like-it", "there is no task nothing-like-it.", "invoke --list"),
        ("status --environment", "--environment", "invoke --help TASK"),
    ],
)
def test_what_is_no_task_is_wrong_input_with_what_is_like_it(
    typed: str, what: str, todo: str
) -> None:
    argv = [sys.executable, "-m", "invoke", *typed.split()]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    first, second = done.stderr.splitlines()
    assert what in first and second.startswith("  What to do: ") and todo in second


def test_the_list_is_by_subject_in_the_order_of_need() -> None:
    lines = invoke("--list").splitlines()
    subjects = [line.rstrip(":") for line in lines if line.endswith(":") and line[0] != " "]
    assert subjects == ["Deploy", "Hosts", "Weights", "Measure", "Inspect", "Develop"]
    names = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert names == list(COLLECTION.tasks)
    assert names.index("plan") < names.index("deploy") < names.index("stop")


@pytest.mark.parametrize("name", ["profile-serving", "profile"])
def test_a_task_is_explained_by_its_name_and_by_its_alias(name: str) -> None:
    for said in (invoke("--help", name), invoke(name, "--help")):
        assert "Record what chosen servers do" in said
        assert "--token-threshold" in said and "-e STRING, --environment=STRING" in said
    assert "(Also: profile)" in invoke("--list")


def test_a_listing_imports_no_script() -> None:
    code = (
        "import sys; from invoke.main import program; sys.argv = ['invoke', '--list']\n"
        "try: program.run()\n"
        "finally: print([n for n in ('plan', 'deploy', 'docs') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
