"""Fetching wheels for an image: the missing ones, once. With real pip and wheels of our own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omnikit import image_wheels
from omnikit.engine_progress import Progress
from omnikit.errors import ActionError
from small_wheel import small_wheel

PYTHON = "3.11"
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


def fetch(folder: Path, pins: dict[str, str], torch_index: str = NOWHERE) -> dict[str, Path]:
    return image_wheels.fetch(folder, pins, PYTHON, torch_index, Progress(print, 5.0, "test"))


def test_the_missing_wheels_are_fetched_and_the_others_stay(tmp_path: Path, index: Path) -> None:
    small_wheel(index, "my_one", "1.0")
    small_wheel(index, "two", "2.0")
    folder = tmp_path / "wheels"
    kept = small_wheel(folder, "my_one", "1.0", content="# this very file\n")
    content = kept.read_bytes()
    pins = {"my-one": "1.0", "two": "2.0"}
    assert [step.argv[-1] for step in image_wheels.steps(folder, pins, PYTHON, NOWHERE)] == [
        "two==2.0"
    ]
    assert fetch(folder, pins) == {"my-one": kept, "two": folder / "two-2.0-py3-none-any.whl"}
    assert kept.read_bytes() == content
    assert image_wheels.steps(folder, pins, PYTHON, NOWHERE) == []


def test_a_wheel_that_was_cut_is_fetched_again(tmp_path: Path, index: Path) -> None:
    whole = small_wheel(index, "one", "1.0").read_bytes()
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "one-1.0-py3-none-any.whl").write_bytes(whole[:-40])
    assert fetch(folder, {"one": "1.0"})["one"].read_bytes() == whole


def test_another_version_is_no_match_and_is_not_handed_on(tmp_path: Path, index: Path) -> None:
    folder = tmp_path / "wheels"
    small_wheel(folder, "one", "0.9")
    small_wheel(index, "one", "1.0")
    assert [path.name for path in fetch(folder, {"one": "1.0"}).values()] == [
        "one-1.0-py3-none-any.whl"
    ]


def test_the_cpu_build_of_torch_is_asked_for_by_name_and_then_elsewhere(tmp_path: Path) -> None:
    steps = image_wheels.steps(tmp_path, {"torch": "2.13.0+cpu", "a": "1"}, "3.11", "https://t")
    pip = (sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--no-deps")
    words = (*pip, "--progress-bar=off", "--python-version=3.11", f"--dest={tmp_path}")
    assert [(step.argv, step.otherwise) for step in steps] == [
        ((*words, "torch==2.13.0+cpu"), (*words, "torch==2.13.0+cpu", "--index-url", "https://t")),
        ((*words, "a==1"), None),
    ]


def test_torch_comes_from_its_own_index_where_the_plain_one_has_no_cpu_build(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    small_wheel(empty / "torch", "torch", "2.0.0")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", empty.as_uri())
    other = tmp_path / "other"
    small_wheel(other / "torch", "torch", "2.13.0+cpu")
    _listing(empty / "torch")
    _listing(other / "torch")
    found = fetch(tmp_path / "wheels", {"torch": "2.13.0+cpu"}, other.as_uri())
    assert list(found) == ["torch"]


def _listing(folder: Path) -> None:
    """The page by which an index tells what it has of a package."""
    links = "".join(f'<a href="{p.name}">{p.name}</a>\n' for p in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def test_a_package_that_no_index_has_is_said_in_one_error(tmp_path: Path, index: Path) -> None:
    with pytest.raises(ActionError, match="the package index has no such build") as caught:
        fetch(tmp_path / "wheels", {"nothere": "1.0"})
    assert "PIP_INDEX_URL" in str(caught.value)
