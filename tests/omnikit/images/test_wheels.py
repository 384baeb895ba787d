"""Fetching wheels for an image: the missing ones, once. With real pip and wheels of our own."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from small_wheel import lock_text, small_wheel

from hostkit.base.errors import ActionError
from omnikit.engine import pins as engine_pins
from omnikit.engine.pins import Entry
from omnikit.engine.progress import Progress
from omnikit.images import wheels as images_wheels
from omnikit.images.wheels import For

pytestmark = pytest.mark.slow

HERE = For("3.11", platform.machine())
NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def locked(folder: Path, *wheels: Path) -> dict[str, Entry]:
    path = folder / "lock.txt"
    path.write_text(lock_text(*wheels))
    return engine_pins.read_lock(path)


def fetch(folder: Path, lock: dict[str, Entry], torch_index: str = NOWHERE) -> dict[str, Path]:
    return images_wheels.fetch(folder, lock, HERE, torch_index, Progress(print, 5.0, "test"))


def test_the_missing_wheels_are_fetched_and_the_others_stay(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "wheels"
    kept = small_wheel(folder, "my_one", "1.0", content="# this very file\n")
    content = kept.read_bytes()
    lock = locked(tmp_path, kept, small_wheel(index, "two", "2.0"))
    (step,) = images_wheels.steps(folder, lock, HERE, NOWHERE)
    assert step.lock == lock["two"].text and step.argv[-1] == str(step.file)
    assert fetch(folder, lock) == {"my-one": kept, "two": folder / "two-2.0-py3-none-any.whl"}
    assert kept.read_bytes() == content
    assert images_wheels.steps(folder, lock, HERE, NOWHERE) == []


def test_a_wheel_that_was_cut_or_changed_is_fetched_again(tmp_path: Path, index: Path) -> None:
    whole = small_wheel(index, "one", "1.0")
    lock, folder = locked(tmp_path, whole), tmp_path / "wheels"
    folder.mkdir()
    (folder / whole.name).write_bytes(whole.read_bytes()[:-40])
    assert fetch(folder, lock)["one"].read_bytes() == whole.read_bytes()
    small_wheel(folder, "one", "1.0", content="import evil\n")
    assert fetch(folder, lock)["one"].read_bytes() == whole.read_bytes()


def test_another_version_is_no_match_and_is_not_handed_on(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "wheels"
    small_wheel(folder, "one", "0.9")
    lock = locked(tmp_path, small_wheel(index, "one", "1.0"))
    assert [path.name for path in fetch(folder, lock).values()] == ["one-1.0-py3-none-any.whl"]


def test_the_cpu_build_of_torch_is_asked_for_alone_and_then_elsewhere(tmp_path: Path) -> None:
    wheels = [small_wheel(tmp_path, *made) for made in (("torch", "2.13.0+cpu"), ("a", "1"))]
    folder = tmp_path / "wheels"
    steps = images_wheels.steps(folder, locked(tmp_path, *wheels), HERE, "https://t")
    pip = (sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps")
    words = (*pip, "--only-binary=:all:", "--progress-bar=off", "--python-version=3.11")
    words += (f"--dest={folder}", "-r")
    torch = (*words, f"{folder}/omnikit-torch.txt")
    assert [(step.argv, step.otherwise) for step in steps] == [
        (torch, (*torch, "--index-url", "https://t")),
        ((*words, f"{folder}/omnikit-a.txt"), None),
    ]


def test_torch_comes_from_its_own_index_where_the_plain_one_has_no_cpu_build(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    small_wheel(empty / "torch", "torch", "2.0.0")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", empty.as_uri())
    other = tmp_path / "other"
    wheel = small_wheel(other / "torch", "torch", "2.13.0+cpu")
    _listing(empty / "torch")
    _listing(other / "torch")
    found = fetch(tmp_path / "wheels", locked(tmp_path, wheel), other.as_uri())
    assert list(found) == ["torch"]


def _listing(folder: Path) -> None:
    """The page by which an index tells what it has of a package."""
    links = "".join(f'<a href="{p.name}">{p.name}</a>\n' for p in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def test_a_package_that_no_index_has_is_said_in_one_error(tmp_path: Path, index: Path) -> None:
    lock = locked(tmp_path, small_wheel(tmp_path, "nothere", "1.0"))
    with pytest.raises(ActionError, match="the package index has no such build") as caught:
        fetch(tmp_path / "wheels", lock)
    assert "PIP_INDEX_URL" in str(caught.value)


def test_wheels_for_another_machine_are_asked_for_by_its_name(tmp_path: Path, index: Path) -> None:
    wheels = []
    for machine in ("x86_64", "aarch64"):
        wheels += [small_wheel(index, "one", "1.0", tag=f"cp311-cp311-manylinux_2_28_{machine}")]
        wheels += [small_wheel(index, "two", "1.0", tag=f"cp311-cp311-linux_{machine}")]
    folder, pins = tmp_path / "wheels", locked(tmp_path, *wheels)
    for machine in ("aarch64", "x86_64"):  # side by side in one folder
        target = For("3.11", machine)
        found = images_wheels.fetch(folder, pins, target, NOWHERE, Progress(print, 5.0, "test"))
        assert all(path.name.endswith(f"_{machine}.whl") for path in found.values())
        assert images_wheels.steps(folder, pins, target, NOWHERE) == []
    assert len(list(folder.glob("*.whl"))) == 4
