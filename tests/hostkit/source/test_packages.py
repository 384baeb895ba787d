"""Wheels into a real virtual environment with a real pip, and what a Python has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hostkit.agent import jobs
from hostkit.base.errors import ActionError, InputError
from hostkit.source import packages

pytestmark = pytest.mark.slow
PACKAGES = ["omni_infer", "vllm", "omni_placement"]


def wheel(code: Path, name: str, version: str, needs: str = "", tag: str = "py3-none-any") -> Path:
    """A real wheel of one module in the build's folder."""
    dist = code / "build/dist"
    dist.mkdir(parents=True, exist_ok=True)
    path, info = dist / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(f"{name}/__init__.py", f"version = '{version}'\n")
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        made.writestr(f"{info}/METADATA", text + (f"Requires-Dist: {needs}\n" if needs else ""))
        made.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        made.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/RECORD,,")
    return path


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "it"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def given(venv: Path, tmp_path: Path, monkeypatch) -> Any:
    """What an installation is told: two wheels, and a Python that has nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing comes from outside
    python = str(venv / "bin/python")
    wheel(tmp_path / "code", "omni_infer", "0.4.1")
    wheel(tmp_path / "code", "vllm", "0.9.0")
    yield {
        "dir": str(tmp_path / "code"),
        "python": python,
        "packages": PACKAGES,
        "optional": ["omni-placement"],
        "container": None,
    }
    for kind in ("omni*", "vllm*"):
        for path in next(venv.glob("lib/python*/site-packages")).glob(kind):
            shutil.rmtree(path)


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["action"] for one in result["packages"]}


def has(given: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["version"] for one in packages.check(given)["packages"]}


def site(given: dict[str, Any]) -> Path:
    return next(Path(given["python"]).parents[1].glob("lib/python*/site-packages"))


def test_wheels_are_installed_once(given, capsys) -> None:
    done = jobs.find("install")(given)
    assert done["changed"] is True
    expected = {"omni_infer": "installed", "vllm": "installed", "omni_placement": "none"}
    assert actions(done) == expected
    assert "installing omni_infer-0.4.1-py3-none-any.whl" in capsys.readouterr().err
    again = packages.install(given)
    assert again["changed"] is False
    assert actions(again) == {**expected, "omni_infer": "unchanged", "vllm": "unchanged"}
    assert "ing" not in capsys.readouterr().err


def test_what_is_there_is_told(given) -> None:
    assert jobs.find("packages")(given)["wrong"] == ["omni_infer", "vllm"]
    packages.install(given)
    found = packages.check(given)
    assert found["changed"] is False and found["wrong"] == []
    first, _, last = found["packages"]
    assert first == {
        "name": "omni_infer",
        "needed": True,
        "version": "0.4.1",
        "location": str(site(given)),
        "importable": True,
        "whole": True,
    }
    assert (last["name"], last["needed"], last["version"]) == ("omni_placement", False, None)
    shutil.rmtree(site(given) / "omni_infer")
    assert packages.check(given)["wrong"] == ["omni_infer"]


def test_only_what_differs_is_replaced_even_with_the_same_version(given) -> None:
    packages.install(given)
    path = Path(given["dir"]) / "build/dist/vllm-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vllm/more.py", "more = 1\n")
    done = packages.install(given)
    assert actions(done)["vllm"] == "installed" and actions(done)["omni_infer"] == "unchanged"
    assert (site(given) / "vllm/more.py").is_file()
    assert packages.install(given)["changed"] is False


def test_an_old_version_and_one_without_a_wheel_are_removed(given, tmp_path: Path) -> None:
    old = [
        wheel(tmp_path / "old", "vllm", "0.8.3"),
        wheel(tmp_path / "old", "omni_placement", "0.1"),
    ]
    pip = [given["python"], "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, *map(str, old)], check=True)
    done = packages.install(given)
    rows = {one["name"]: (one["action"], one["before"], one["version"]) for one in done["packages"]}
    assert rows["vllm"] == ("installed", "0.8.3", "0.9.0")
    assert rows["omni_placement"] == ("removed", "0.1", None)
    assert has(given) == {"omni_infer": "0.4.1", "vllm": "0.9.0", "omni_placement": None}
    assert packages.install(given)["changed"] is False


def test_what_cannot_be_installed_is_found_out_before_anything_is_removed(
    given, tmp_path: Path
) -> None:
    packages.install(given)
    path = Path(given["dir"]) / "build/dist/vllm-0.9.0-py3-none-any.whl"
    path.unlink()
    wheel(tmp_path / "code", "vllm", "0.9.1", needs="no-such-package-of-ours==7")
    with pytest.raises(InputError, match="nothing was removed") as caught:
        packages.install(given)
    assert "PIP_NO_DEPS=1" in str(caught.value) and "no-such-package-of-ours" in str(caught.value)
    assert has(given)["vllm"] == "0.9.0"


def test_pips_own_variables_count(given, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "code/build/dist/vllm-0.9.0-py3-none-any.whl").unlink()
    wheel(tmp_path / "code", "vllm", "0.9.1", needs="no-such-package-of-ours==7")
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    packages.install(given)
    assert has(given)["vllm"] == "0.9.1"


def test_a_failure_in_the_middle_names_what_is_missing(given, tmp_path: Path, monkeypatch) -> None:
    packages.install(given)
    path = tmp_path / "code/build/dist/vllm-0.9.0-py3-none-any.whl"
    path.unlink()
    wheel(tmp_path / "code", "vllm", "0.9.1")
    # The first half of pip's work is real; then the place that it writes to becomes a file.
    real = packages._pip

    def pip(argv: list[str], what: str, *rest: Any) -> None:
        if what == "installing":
            (site(given) / "vllm").write_text("in the way")
        real(argv, what, *rest)

    monkeypatch.setattr(packages, "_pip", pip)
    with pytest.raises(ActionError, match="now missing: vllm") as caught:
        packages.install(given)
    assert "--only install" in str(caught.value)
    monkeypatch.undo()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (site(given) / "vllm").unlink()
    assert actions(packages.install(given))["vllm"] == "installed"


def test_what_an_ended_installation_left_is_written_over(given) -> None:
    packages.install(given)
    for name in ("RECORD", "direct_url.json"):  # pip writes them last
        (site(given) / "vllm-0.9.0.dist-info" / name).unlink()
    assert packages.check(given)["wrong"] == ["vllm"]
    assert actions(packages.install(given))["vllm"] == "installed"
    assert packages.check(given)["wrong"] == []
    assert packages.install(given)["changed"] is False


def test_wheels_that_are_not_there_or_twice(given, tmp_path: Path) -> None:
    wheel(tmp_path / "code", "vllm", "0.9.1")
    with pytest.raises(InputError, match="vllm has 2 wheels"):
        packages.install(given)
    for path in (tmp_path / "code/build/dist").glob("vllm*"):
        path.unlink()
    with pytest.raises(InputError, match="no wheel of vllm"):
        packages.install(given)
    with pytest.raises(InputError, match="no such folder with wheels"):
        packages.install({**given, "dir": str(tmp_path)})
    assert has(given) == dict.fromkeys(PACKAGES)


def test_a_wheel_for_another_machine_is_named(given, tmp_path: Path) -> None:
    (tmp_path / "code/build/dist/vllm-0.9.0-py3-none-any.whl").unlink()
    wheel(tmp_path / "code", "vllm", "0.9.0", tag="cp27-cp27m-win32")
    before = has(given)
    with pytest.raises(InputError, match="for another Python version or machine") as caught:
        packages.install(given)
    assert "vllm-0.9.0-cp27-cp27m-win32.whl: it is for win32" in str(caught.value)
    assert has(given) == before


def test_a_python_that_is_not_there_or_has_no_pip(given, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no /none/python here"):
        packages.check({**given, "python": "/none/python"})
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    with pytest.raises(InputError, match="has no pip") as caught:
        packages.install({**given, "python": str(bare / "bin/python")})
    assert "ensurepip" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("error: externally-managed-environment\n", "source.python=DIR/bin/python"),
        ("OSError: [Errno 28] No space left on device", "df -h"),
        ("OSError: [Errno 13] Permission denied: '/usr/lib'", "run as its owner"),
        ("ERROR: ResolutionImpossible: for help visit", "PIP_NO_DEPS=1"),
        ("something new", "pip's lines above"),
    ],
)
def test_what_pip_says_is_explained(said: str, todo: str) -> None:
    assert todo in packages.meaning(packages.Ended(1, said))[1]
