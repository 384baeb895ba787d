"""What every script of the toolkit has in common."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import _renamed
import pytest

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = sorted((ROOT / "scripts").glob("*.*"))
FORMER = [path for path in EVERYTHING if path.is_symlink()]
# What begins with an underscore is no script of its own.
SCRIPTS = [path for path in EVERYTHING if path not in FORMER and path.name[0] != "_"]
PYTHON_SCRIPTS = [path for path in SCRIPTS if path.suffix == ".py"]
SHELL_SCRIPTS = [path for path in SCRIPTS if path.suffix == ".sh"]


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("path", PYTHON_SCRIPTS, ids=lambda p: p.name)
def test_help_has_an_example_and_the_exit_codes(path: Path) -> None:
    done = run(sys.executable, path, "--help")
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout
    assert "exit codes: 0 done" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", PYTHON_SCRIPTS, ids=lambda p: p.name)
def test_an_unknown_option_is_misuse(path: Path) -> None:
    done = run(sys.executable, path, "--no-such-option")
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda p: p.name)
def test_shell_scripts_explain_themselves(path: Path) -> None:
    done = run("bash", path, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout and "example:" in done.stdout
    assert run("bash", path, "--no-such-option").returncode == 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_executable_and_name_their_interpreter(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    assert path.read_text().startswith(("#!/usr/bin/env bash", "#!/usr/bin/env python3"))


def test_every_former_name_is_a_link_and_no_other() -> None:
    assert {path.name for path in FORMER} == set(_renamed.NOW)
    assert all(path.readlink() == Path(f"_renamed{path.suffix}") for path in FORMER)
    assert {*_renamed.NOW.values()} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", FORMER, ids=lambda p: p.name)
def test_a_former_name_says_the_one_of_today_and_goes_on(path: Path) -> None:
    runner = "bash" if path.suffix == ".sh" else sys.executable
    done = run(runner, path, "--help")
    now = _renamed.NOW[path.name]
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {now}")
    assert done.stderr == f"{path.name} is now called {now}\n"


def test_a_former_name_hands_on_words_and_exit_code_from_a_link_of_the_users(
    tmp_path: Path,
) -> None:
    link = tmp_path / "our-plan"
    link.symlink_to(ROOT / "scripts" / "show_plan.py")
    done = run(link, "-e", "no such", cwd=tmp_path)
    assert done.returncode == 2
    assert "no environment named 'no such'" in done.stderr


@pytest.mark.slow
def test_a_script_works_through_a_link_from_any_folder(tmp_path: Path) -> None:
    link = tmp_path / "plan"
    link.symlink_to(ROOT / "scripts" / "plan.py")
    done = run(sys.executable, link, "--environment", "colocated", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8300" in done.stdout


def test_no_script_is_named_like_a_module_of_the_library() -> None:
    # Python 3.9 cannot name its modules; these are the ones that verbs are tempted to be called.
    tempting = {"profile", "logging", "platform", "secrets", "select", "signal", "test", "trace"}
    library = set(getattr(sys, "stdlib_module_names", tempting))
    assert not {path.stem for path in PYTHON_SCRIPTS} & library


@pytest.mark.slow
@pytest.mark.parametrize("word", ["deploy", "plan", "status", "stop", "restart", "logs", "config"])
def test_make_target_and_task_exist(word: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert word in makefile
    done = run(sys.executable, "-m", "invoke", "--list")
    assert f"  {word} " in done.stdout


def test_an_error_is_text_and_keeps_its_exit_code_through_invoke() -> None:
    done = run(sys.executable, "-m", "invoke", "plan", "--environment", "no-such")
    assert done.returncode == 2
    assert "there is no environment named 'no-such'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    line = f"{shlex.quote(sys.executable)} -m invoke config --changed --origin | head -n 1"
    done = run("bash", "-c", line)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
