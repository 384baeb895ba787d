"""A script run by any Python goes on in the toolkit's own, or says how to make that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from host_cases import pythons

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted(
    path.name for path in (ROOT / "scripts").glob("[a-z]*.py") if not path.is_symlink()
)
STAMP = ".toolkit-installed"
PLAN = ["--environment", "2p1d"]
each_python = pytest.mark.parametrize("python", pythons())


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The toolkit as it is cloned, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a clone")
    for name in ("scripts", "configs", "templates"):
        leave = shutil.ignore_patterns("__pycache__", "*.local.yaml")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=leave)
    return folder


@pytest.fixture
def toolkit(copied: Path):
    """The same, with no environment of its own before and after the test."""
    yield copied
    shutil.rmtree(copied / ".venv", ignore_errors=True)


def environment(folder: Path, python: str = "") -> Path:
    """A finished virtual environment there: with this one's packages, or of a Python without."""
    (folder / "bin").mkdir(parents=True)
    if python:
        (folder / "bin" / "python").symlink_to(python)
    else:
        (folder / "bin" / "python").symlink_to(sys.executable)
        for path in Path(sys.prefix).glob("lib*"):
            (folder / path.name).symlink_to(path)
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder)
    (folder / STAMP).touch()
    return folder / "bin" / "python"


def run(
    python: object, script: Path, *words: object, cwd: Path = ROOT, **more
) -> subprocess.CompletedProcess[str]:
    """By a Python without packages, unless it is an environment's."""
    flags = [] if Path(str(python)).with_name("..").joinpath(STAMP).exists() else ["-S"]
    given = [str(python), *flags, str(script), *map(str, words)]
    return subprocess.run(given, cwd=cwd, capture_output=True, text=True, timeout=600, **more)


@each_python
def test_it_goes_on_in_the_toolkits_own_environment(
    toolkit: Path, python: str, tmp_path: Path
) -> None:
    environment(toolkit / ".venv")
    done = run(python, toolkit / "scripts" / "plan.py", *PLAN, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["environment"] == "2p1d"


def test_words_folder_input_and_exit_code_stay(toolkit: Path, tmp_path: Path) -> None:
    environment(toolkit / ".venv")
    python, scripts = pythons()[0], toolkit / "scripts"
    done = run(python, scripts / "plan.py", "--environment", "no 'such'", cwd=tmp_path)
    assert done.returncode == 2 and "no 'such'" in done.stderr
    (tmp_path / "here.yaml").write_text("name: here\n")
    done = run(python, scripts / "config.py", "-e", "2p1d", "--config", "here.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "here.yaml:1" in done.stderr
    log = (ROOT / "tests" / "facts" / "logs" / "port-in-use.log").read_text()
    done = run(python, scripts / "doctor.py", "--log=-", input=log, cwd=tmp_path)
    assert done.returncode == 1 and "port" in done.stdout


def test_executed_by_its_first_line_through_a_link(toolkit: Path, tmp_path: Path) -> None:
    environment(toolkit / ".venv")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(pythons()[0])
    link = tmp_path / "the plan"
    link.symlink_to(toolkit / "scripts" / "plan.py")
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    done = subprocess.run([link, *PLAN], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "environment 2p1d" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_environment(toolkit: Path, script: str) -> None:
    """Nor does misuse, which is found by the same parser. The oldest Python takes its syntax."""
    done = run(pythons()[0], toolkit / "scripts" / script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@each_python
@pytest.mark.parametrize("there", ["nothing", "no stamp", "no Python"])
def test_without_an_environment_it_says_in_a_sentence_how_to_make_it(
    toolkit: Path, python: str, there: str, tmp_path: Path
) -> None:
    own = toolkit / ".venv"
    if there != "nothing":
        made = environment(own)
        (own / STAMP if there == "no stamp" else made).unlink()
    done = run(python, toolkit / "scripts" / "plan.py", *PLAN, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    state = "is not made yet" if there == "nothing" else "is not finished"
    assert done.stderr.splitlines() == [
        f"error: the toolkit's own Python environment, {own}, {state}.",
        f"  What to do: make -C '{toolkit}' (a minute, once); then the same command again",
    ]


def test_a_broken_environment_is_no_endless_round(toolkit: Path) -> None:
    environment(toolkit / ".venv", pythons()[0])
    (toolkit / ".venv" / "bin" / "python").unlink()
    wrapper = toolkit / ".venv" / "bin" / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {pythons()[0]} -S "$@"\n')
    wrapper.chmod(0o755)
    done = run(pythons()[0], toolkit / "scripts" / "plan.py", *PLAN)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "What to do: " in done.stderr


def test_another_finished_environment_will_do(toolkit: Path, tmp_path: Path) -> None:
    environment(toolkit / ".venv", "/bin/false")
    python = environment(tmp_path / "other")
    assert run(python, toolkit / "scripts" / "plan.py", *PLAN).returncode == 0


@each_python
def test_what_needs_no_package_runs_without(toolkit: Path, python: str, tmp_path: Path) -> None:
    scripts = toolkit / "scripts"
    done = run(python, scripts / "make_tiny_model.py", "--out", tmp_path / "m", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(python, scripts / "install_proxy.py", "--venv", tmp_path / "v", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    done = run(python, scripts / "launch_proxy.py", "--run-dir", tmp_path / "run", "--status")
    assert (done.returncode, done.stderr) == (1, "")
    done = run(python, scripts / "prepare_checkpoint.py", "--dir", tmp_path)
    assert done.returncode == 2 and ".venv" not in done.stderr
    words = ["--standalone", "--venv", tmp_path / "v", "--dry-run", "--requirements"]
    pins = toolkit / "configs" / "engines" / "cpu-requirements.txt"
    done = run(python, scripts / "install_engine.py", *words, pins)
    assert ".venv" not in done.stderr.replace(str(tmp_path), ""), done.stderr
