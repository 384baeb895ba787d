"""Files that set up an image's environment, tame and hostile, loaded by real shells."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.run import Result
from hostkit.containers import profile
from omnikit.config import config
from omnikit.fleet import render
from omnikit.plan import containers
from omnikit.prepare.deployment import prepare
from omnikit.topology.topology import make_plan

pytestmark = pytest.mark.slow

RAY = str(Path(__file__).resolve().parents[2] / "environments" / "ray.yaml")
THERE, ABSENT = "libm.so.6", "libascendcl.so"
RECORDER = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"
# The ways in which Debian's and other files leave shells that are not interactive.
GUARDS = (
    '[ -z "$PS1" ] && return\n',
    "case $- in\n    *i*) ;;\n      *) return;;\nesac\n",
    "if [[ $- != *i* ]]; then\n  return\nfi\n",
    "[ -t 0 ] || return 0\n",
)


def given(folder: Path, text: str, library: str | None = THERE) -> dict[str, Any]:
    """A profile with this text. Its path is hostile too."""
    file = folder / "my $(touch x) 'rc'"
    file.write_text(text)
    return {"file": str(file), "library": library, "python": sys.executable}


def load(found: dict[str, Any], *words: str, program: str = RECORDER) -> Result:
    """Run a program with the file loaded before it, as docker exec would."""
    argv = profile.words(found, "container p0", [sys.executable, "-c", program, *words])
    done = subprocess.run(
        argv, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, cwd="/usr"
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_without_a_profile_the_words_are_as_they_were() -> None:
    assert profile.words(None, "container p0", ["a", "b c"]) == ["a", "b c"]


@pytest.mark.parametrize(
    "text",
    [
        "export SET=1\n",
        "declare -x SET=1\n",  # would be a function's own variable
        "set -a\nSET=1\n",
        "export SET=$UNSET_1; false; no-such-program\nSET=1\n",
        "export SET=1; cd /tmp; set -- other words; shift\n",
        "set -fx; export SET=1\n",
        "echo noise; export SET=1; exec >/dev/null; exec 2>/dev/null 3</dev/null\n",
        "read -r line; export SET=1\n",
        "main() { echo no; }; usage() { echo no; }; export SET=1\n",
        "shopt -s expand_aliases; alias set=false cd=false exec=false; export SET=1\n",
        "export SET=$(exec echo 1); (exit 3); (exec false)\n",
        "trap 'echo bye' EXIT; trap 'echo each' DEBUG; export SET=1\n",
        "export SET=1; return 7; export SET=2\n",
        "set -o posix; export SET=1\n",
        "export SET=1\nif [\n",
        "export SET=1 PYTHONPATH=$PWD/none IFS=1\n",
    ],
)
@pytest.mark.parametrize("library", [THERE, None])
def test_whatever_it_does_its_variables_arrive_and_nothing_else(
    tmp_path: Path, text: str, library: str | None
) -> None:
    done = load(given(tmp_path, text, library), "a b", "'$(touch x)", "")
    assert done.code == 0, done.err
    words, variables, folder = json.loads(done.out)
    assert words == ["a b", "'$(touch x)", ""] and folder == "/usr"
    assert variables["SET"] == "1"
    assert not {name for name in variables if name.startswith("omnikit")}
    assert profile.problem(done) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 0\n", "ends the shell that loads it"),
        ("set -e\nfalse\n", "ends the shell that loads it"),
        ("set -u\necho $UNSET_1\n", "ends the shell that loads it"),
        ("exec zsh -l\n", "replaces the shell that loads it: exec zsh -l"),
    ],
)
def test_a_file_that_takes_the_shell_away_is_named(tmp_path: Path, text: str, said: str) -> None:
    found = given(tmp_path, text)
    done = load(found)
    against = profile.problem(done)
    assert done.out == "" and against is not None
    assert against[0].startswith(f"container p0: {found['file']} {said}.")
    assert "container.profile" in against[1]


@pytest.mark.needs(root=True)  # who sees all
def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none"):
        done = load({"file": str(file), "library": THERE, "python": sys.executable})
        against = profile.problem(done)
        assert against is not None and against[0] == f"container p0: there is no file {file}."


@pytest.mark.needs(root=True)
@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("the file", "user 65534 cannot read {}."),
        ("its folder", "there is no file {} that user 65534 may see."),
    ],
)
def test_a_file_of_another_user_is_named(closed: str, said: str) -> None:
    with tempfile.TemporaryDirectory() as made:  # all of pytest's folders are closed to others
        folder = Path(made)
        found = given(folder, "export SET=1\n")
        Path(found["file"]).chmod(0o600 if closed == "the file" else 0o644)
        folder.chmod(0o711 if closed == "the file" else 0o700)
        words = profile.words(found, "container p0", ["true"])
        done = subprocess.run(words, capture_output=True, text=True, user=65534, group=65534)
        assert done.returncode == profile.FAILED
        assert said.format(found["file"]) in done.stderr


def test_a_library_that_does_not_load_is_named_with_the_loaders_word(tmp_path: Path) -> None:
    text = "echo a; . /usr/local/Ascend/set_env.sh\n"
    done = load(given(tmp_path, text, ABSENT))
    against = profile.problem(done)
    assert done.code == profile.FAILED and done.out == "" and against is not None
    what, todo = against
    assert f"then {ABSENT} cannot be (exit status 1: OSError: {ABSENT}: cannot open" in what
    assert "it said: " in what and "/usr/local/Ascend/set_env.sh: No such file" in what
    assert "return" not in what and "container.mounts" in todo


@pytest.mark.parametrize("guard", GUARDS)
def test_an_early_return_is_named_with_its_line(tmp_path: Path, guard: str) -> None:
    done = load(given(tmp_path, f"# for people\n{guard}export SET=1\n", ABSENT))
    against = profile.problem(done)
    line = 2 + guard[: guard.index("return")].count("\n")
    assert against is not None
    assert (
        f"not interactive perhaps leaves the file early, at the return in line {line})"
        in (against[0])
    )


def test_a_library_of_the_folder_that_the_file_names_loads(tmp_path: Path) -> None:
    """The loader reads LD_LIBRARY_PATH when a process starts: it must have been set before."""
    folder = tmp_path / "lib"
    folder.mkdir()
    libm = json.loads(load(given(tmp_path, ""), program=_LIBM).out)
    (folder / ABSENT).write_bytes(Path(libm).read_bytes())
    done = load(given(tmp_path, f"export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH\n", ABSENT))
    assert done.code == 0, done.err


_LIBM = """
import ctypes, json
ctypes.CDLL("libm.so.6")
print(json.dumps(next(w for l in open("/proc/self/maps") for w in l.split() if "/libm" in w)))
"""


def test_modules_that_its_pythonpath_hides_do_not_matter_to_the_look(tmp_path: Path) -> None:
    (tmp_path / "ctypes.py").write_text("raise SystemExit('not this one')\n")
    done = load(given(tmp_path, f"export PYTHONPATH={tmp_path}\n"), program="print(1)")
    assert (done.code, done.out) == (0, "1\n"), done.err


def test_a_python_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = load({**given(tmp_path, ""), "python": "python9"})
    against = profile.problem(done)
    assert against is not None and "python9: command not found" in against[0]


def test_an_exit_status_of_the_command_itself_is_no_problem_of_the_environment() -> None:
    assert profile.problem(Result(profile.FAILED, "", "it failed")) is None
    assert profile.problem(Result(1, "", "error: x. What to do: y")) is None
    assert profile.problem(Result(profile.FAILED, "", "error: x. What to do: y")) == ("x.", "y")


def test_start_scripts_load_it_once_and_the_plans_variables_win(tmp_path: Path) -> None:
    (node,) = [n for n in make_plan(config.load("2p1d", environ={})).nodes if n.name == "d0"]
    node = replace(
        node,
        env={"OURS": "plan"},
        prepend={"THEIRS": "first"},
        workdir="",
        placement_check=(),
        temp_dir=str(tmp_path / "t"),
        command=(sys.executable, "-c", RECORDER, "serve"),
    )
    text = "echo noise\nexport OURS=file THEIRS=1 TIMES=x$TIMES\nmain() { :; }\nset -- 99\n"
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("2p1d", node, given(tmp_path, text)))
    done = subprocess.run(["bash", script, "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words, variables, _ = json.loads(done.stdout)
    assert words[0] == "serve" and words[1:] == list(node.servers[3].own_args)
    assert (variables["OURS"], variables["TIMES"]) == ("plan", "x")
    assert variables["THEIRS"] == "first:1"
    assert done.stderr == "noise\n"


def test_ray_and_the_wait_for_it_have_the_environment_too(tmp_path: Path) -> None:
    (node,) = [n for n in make_plan(config.load(RAY, environ={})).nodes if n.name == "p0"]
    waited = tmp_path / "waited"
    node = replace(
        node,
        temp_dir=str(tmp_path / "t"),
        workdir="",
        placement_check=(),
        ray=(sys.executable, "-c", RECORDER, "head"),
        ray_wait=("bash", "-c", 'echo "$THEIRS" >"$0"', str(waited)),
        command=(sys.executable, "-c", RECORDER, "serve"),
        env={},
    )
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("ray", node, given(tmp_path, "export THEIRS=1\n")))
    for rank, program in (("ray", "head"), ("0", "serve")):
        done = subprocess.run(["bash", script, rank], capture_output=True, text=True)
        words, variables, _ = json.loads(done.stdout)
        assert words[0] == program and variables["THEIRS"] == "1"
    assert waited.read_text() == "1\n"


@pytest.mark.needs("ip")
def test_start_scripts_without_the_environment_start_nothing_but_tell_their_usage(
    tmp_path: Path,
) -> None:
    (node,) = [n for n in make_plan(config.load("2p1d", environ={})).nodes if n.name == "d0"]
    node = replace(node, command=("touch", str(tmp_path / "started")))
    script = tmp_path / "start.sh"
    script.write_text(render.start_script("2p1d", node, given(tmp_path, "", ABSENT)))
    done = subprocess.run(["bash", script, "0"], capture_output=True, text=True)
    assert done.returncode == profile.FAILED and not (tmp_path / "started").exists()
    assert done.stderr.startswith("error: container omnikit_2p1d_d0: ")
    told = subprocess.run(["bash", script, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout.startswith("usage: start.sh")


def test_the_plan_names_what_each_release_and_engine_needs() -> None:
    def found(environment: str, *sets: str) -> Any:
        return containers.profile(config.load(environment, assignments=sets, environ={}).settings)

    assert found("2p1d") == {
        "file": "/root/.bashrc",
        "library": "libascendcl.so",
        "python": "python3",
    }
    assert found("local", "runtime=docker") is None
    loaded = config.load("2p1d", environ={})
    plan = make_plan(loaded)
    specs = containers.host_specs(loaded.settings, plan, plan.hosts[0])
    libraries = {name: spec["profile"]["library"] for name, spec in specs.items()}
    # The proxy's host perhaps has no driver.
    assert libraries == {"omnikit_2p1d_p0": "libascendcl.so", "omnikit_2p1d_c0": None}


def test_on_the_host_itself_nothing_is_loaded() -> None:
    loaded = config.load("2p1d", assignments=["runtime=process"], environ={})
    files = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files
    texts = "".join(text for own in files.values() for text in own.values())
    assert "omnikit_file" not in texts and ".bashrc" not in texts
