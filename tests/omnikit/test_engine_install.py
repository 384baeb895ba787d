"""The installation as a whole: order of checks, lock, stamp. With a small package of our own."""

from __future__ import annotations

import ensurepip
import fcntl
import sys
import zipfile
from pathlib import Path

import pytest
from omnikit import engine_install, engine_pins, engine_steps
from omnikit.errors import ActionError, InputError

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
HERE = engine_install.Options(python=sys.executable, torch_index="http://127.0.0.1:9", disk_mib=50)


def wheel(folder: Path, name: str, version: str) -> None:
    """A package with one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        for path, text in files.items():
            made.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as the only index, this Python as supported, a light import check."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(engine_pins, "SUPPORTED", {VERSION: ""})
    monkeypatch.setattr("omnikit.engine_python.SUPPORTED", {VERSION: ""})
    monkeypatch.setattr(engine_steps, "_TRY", "import tinyengine")
    for version in ("1.0", "2.0"):
        wheel(tmp_path / "wheels", "tinyengine", version)
    wheel(tmp_path / "wheels", "extra", "1.0")
    return tmp_path


def pins(folder: Path, *wanted: str) -> Path:
    """Pins of our packages beside the pip that a new environment has."""
    path = folder / "pins.txt"
    path.write_text("\n".join([*wanted, f"pip=={ensurepip.version()}"]) + "\n")
    return path


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
    with (venv / engine_pins.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        with pytest.raises(InputError, match="process 4711 is installing"):
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
