"""An index, a mirror or a cache cannot make us install another file than the one that is locked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import lock_dependencies
import pytest
import tomllib
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_wheel import lock_text, small_wheel

from hostkit.base.errors import ActionError
from omnikit.engine import install, pins
from omnikit.engine.progress import Progress
from omnikit.images import recipes

ROOT = Path(__file__).resolve().parents[3]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = [lock.path for lock in lock_dependencies.LOCKS]


def lines(*globs: str) -> list[tuple[Path, str]]:
    """Every line of our own files, continued lines as one."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *globs]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in names.splitlines():
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        found += [(Path(name), line) for line in text.splitlines()]
    return found


def needed_on(entries: list[pins.Entry], python: str) -> dict[str, pins.Entry]:
    """What of a lock is for this Python on Linux."""
    where = {"python_version": python, "python_full_version": f"{python}.1"}
    where |= {"sys_platform": "linux", "implementation_name": "cpython"}
    where |= {"platform_machine": "x86_64", "platform_python_implementation": "CPython"}
    here = [e for e in entries if not e.marker or Marker(e.marker).evaluate(where)]
    assert len({e.name for e in here}) == len(here), "a package is locked twice"
    return {e.name: e for e in here}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_its_version_and_check_sums(name: str) -> None:
    entries = pins.read_entries(ROOT / name)
    assert entries
    assert [entry.name for entry in entries if not entry.sums] == []


@pytest.mark.parametrize(
    ("name", "more"), [("requirements.txt", []), ("requirements-dev.txt", ["dev"])]
)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_say_what_pyproject_says(name: str, more: list[str], python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        line for extra in more for line in project["optional-dependencies"][extra]
    ]
    locked = needed_on(pins.read_entries(ROOT / name), python)
    for line in wanted:
        asked = Requirement(line)
        if asked.marker and not asked.marker.evaluate(
            {"python_version": python, "platform_machine": "x86_64"}
        ):
            continue
        found = locked[canonicalize_name(asked.name)]
        assert asked.specifier.contains(found.version), line


def test_what_a_locked_package_needs_is_locked_as_well() -> None:
    """With this machine's packages: nothing is left for pip to choose."""
    locked = needed_on(
        pins.read_entries(ROOT / "requirements-dev.txt"),
        f"{sys.version_info[0]}.{sys.version_info[1]}",
    )
    looked = 0
    for name in locked:
        try:
            asks = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an environment of before
        for line in asks:
            asked = Requirement(line)
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                looked += 1
                assert canonicalize_name(asked.name) in locked, f"{name} needs {line}"
    assert looked > 50


def test_the_control_image_has_what_the_toolkit_has_on_its_python() -> None:
    ours = needed_on(pins.read_entries(ROOT / "requirements.txt"), pins.PYTHON)
    image = pins.read_lock(ROOT / "docker/control/requirements.txt")
    assert {n: e.version for n, e in image.items()} == {n: e.version for n, e in ours.items()}


def test_only_maintained_releases_of_ansible_core_are_installed() -> None:
    """Upstream maintains the newest and the two before it; see docs/security.md for the dates."""
    entries = pins.read_entries(ROOT / "requirements.txt")
    found = {e.version.rpartition(".")[0] for e in entries if e.name == "ansible-core"}
    assert found <= {"2.19", "2.20", "2.21"}


def test_no_command_of_ours_installs_from_an_index_without_check_sums() -> None:
    """Scripts, images, tests: pip with hashes, or of files that are here (--no-index, no deps)."""
    pip = re.compile(r"pip[\"', ]+(install|download)\b(?!ing|ed)")
    safe = ("--require-hashes", "--no-index", "--editable")
    wild = []
    for path, line in lines("*.sh", "docker/*", "*.py", "Makefile", ".ci/run"):
        if pip.search(line) and "echo" not in line and "uv python install" not in line:
            wild += [] if any(word in line for word in safe) else [f"{path}: {line.strip()}"]
    # These say what pip would say, or install files of their own.
    own = ("twin/", "hostkit/", "omnikit/", "adversarial/", "kit/source_cases")
    own += ("test_run_msm", "test_docker_im")
    known = tuple(f"tests/{name}" for name in own)
    # Words for a person, wheels that were built on the host (docs/security.md says what of them), a
    # command whose next line has --require-hashes.
    known += ("scripts/omnikit/weights/", "scripts/wait_for_ray", "scripts/hostkit/source/packages")
    known += ("scripts/omnikit/proxy/install", "scripts/omnikit/spread/wheel")
    for name in ("proxy/install.py", "spread/wheel.py"):
        assert "--require-hashes" in (ROOT / "scripts/omnikit" / name).read_text()
    assert [line for line in wild if not line.startswith(known)] == []


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own index: pip is told of it by the variables that a mirror is told by."""
    folder = tmp_path / "index"
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The set-up of the toolkit with another lock file."""
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    for name in ("setup_toolkit.sh", "_lib.sh"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    return folder


def set_up(project: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    script = project / "scripts" / "setup_toolkit.sh"
    return subprocess.run(
        ["bash", str(script), str(project / "venv")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **variables},
    )


@pytest.mark.slow
def test_the_toolkit_installs_from_a_mirror_and_refuses_what_it_exchanged(
    project: Path, index: Path
) -> None:
    (project / "requirements.txt").write_text(lock_text(small_wheel(index, "one", "1.0")))
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    assert list((project / "venv").glob("lib/python*/site-packages/one.py"))
    shutil.rmtree(project / "venv")
    small_wheel(index, "one", "1.0", content="import evil\n")
    done = set_up(project)
    assert done.returncode == 1
    assert "has another file than the one that requirements.txt locks" in done.stderr
    assert "one==1.0" in done.stderr and "do not install it" in done.stderr
    assert not list((project / "venv").glob("lib/python*/site-packages/one.py"))


@pytest.mark.slow
def test_a_package_that_a_locked_one_draws_in_is_not_installed(project: Path, index: Path) -> None:
    """Whoever takes over a package cannot bring in others that nobody has looked at."""
    small_wheel(index, "other", "1.0")
    wheel = small_wheel(index, "one", "1.0", needs="other")
    (project / "requirements.txt").write_text(lock_text(wheel))
    done = set_up(project)
    assert done.returncode == 1
    assert not list((project / "venv").glob("lib/python*/site-packages/o*.py"))


@pytest.mark.slow
def test_the_engine_refuses_a_file_that_an_index_exchanged(tmp_path: Path, index: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(lock_text(small_wheel(index, "one", "1.0")))
    small_wheel(index, "one", "1.0", content="import evil\n")
    venv, progress = tmp_path / "venv", Progress(print, 3600)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (step,) = install.pip_steps(venv, pins.read_lock(lock), None)
    with pytest.raises(ActionError, match="another file than the one that is locked") as caught:
        install.run_pip(step, venv, pins.PYTHON, 1, progress)
    assert "one" in caught.value.what and "do not install it" in str(caught.value.todo)
    assert not list(venv.glob("lib/python*/site-packages/one.py"))


def test_an_image_gets_no_wheel_that_an_index_exchanged(tmp_path: Path, index: Path) -> None:
    lock, folder = tmp_path / "lock.txt", tmp_path / "wheels"
    lock.write_text(lock_text(small_wheel(index, "one", "1.0")))
    small_wheel(index, "one", "1.0", content="import evil\n")
    target = recipes.For(pins.PYTHON, os.uname().machine)
    with pytest.raises(ActionError, match="another file than the one that is locked"):
        recipes.fetch(
            folder, pins.read_lock(lock), target, "http://127.0.0.1:9", Progress(print, 9)
        )
    assert list(folder.glob("*.whl")) == []


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ('ID=openEuler\nVERSION_ID="22.03"\n', "uv python install 3.12"),
        ('ID=ubuntu\nVERSION_ID="22.04"\n', "apt-get install python3.11 python3.11-venv"),
        ('ID="rocky"\nVERSION_ID="9.4"\n', "dnf install python3.12"),
        ('ID=debian\nVERSION_ID="11"\n', "uv python install 3.12"),
        (None, "uv python install 3.12"),
    ],
)
@pytest.mark.parametrize("version", ["3.9.18", "3.10.13"])
def test_a_python_without_a_maintained_ansible_is_refused_with_what_helps_on_this_system(
    project: Path, tmp_path: Path, system: str | None, said: str, version: str
) -> None:
    programs, release = tmp_path / "bin", tmp_path / "os-release"
    programs.mkdir()
    if system:
        release.write_text(system)
    for name in ("bash", "dirname", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    old = programs / "python3"
    old.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python {version}'\nexit 1\n")
    old.chmod(0o755)
    done = set_up(project, PATH=str(programs), PYTHON="python3", OS_RELEASE=str(release))
    assert done.returncode == 2, done.stderr
    assert "no Python 3.11 to 3.13 was found" in done.stderr and version in done.stderr
    assert said in done.stderr
    assert not (project / "venv").exists()
