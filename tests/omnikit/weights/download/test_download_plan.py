"""What is to be done with each file: all that can lie in a target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest

from hostkit.base.errors import InputError
from omnikit.weights.checkpoint.hashes import of_file
from omnikit.weights.download import plan as download_plan
from omnikit.weights.download.types import Listing, RemoteFile

DATA = b'{"a": 1}'


def remote(tmp_path: Path, name: str, data: bytes = DATA, hashed: bool = True) -> RemoteFile:
    beside = tmp_path / "source"
    beside.write_bytes(data)
    found = of_file(beside, "sha256:") if hashed else ""
    return RemoteFile(name, "http://x/", len(data), found, "" if hashed else f"etag:{data!r}")


def action(
    tmp_path: Path, file: RemoteFile, *, verify: bool = False, replace: bool = False
) -> tuple[str, int]:
    """What is done with the file, and the bytes that were read for it."""
    read: list[int] = []
    (item,) = download_plan.compare(
        tmp_path / "target", Listing("hub", "", [file]), [file],
        download_plan.read_record(tmp_path / "target"),
        verify=verify, replace=replace, threads=1, passed=read.append,
    )  # fmt: skip
    return item.action, sum(read)


def put(tmp_path: Path, file: RemoteFile, data: bytes = DATA, origin: str = "hub") -> Path:
    """The file as an earlier run has fetched it."""
    path = tmp_path / "target" / file.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    record = download_plan.read_record(tmp_path / "target")
    record.origin = origin
    record.put(file, of_file(path, file.hash))
    return path


def _edited(path: Path) -> None:
    path.write_text('{"a": 2, "more": 3}')


def _cut(path: Path) -> None:
    path.write_bytes(DATA[:-1])


def _touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("config.json", _touched, "unchanged"),
        ("config.json", _edited, "keep"),
        ("config.json", _cut, "replace"),
        ("model.safetensors", _edited, "replace"),
        ("model.safetensors", _cut, "replace"),
        ("model.safetensors", _touched, "unchanged"),
    ],
)
def test_what_changed_here_is_told_from_damage(
    tmp_path: Path, name: str, change: Callable[[Path], None], wanted: str, hashed: bool
) -> None:
    file = remote(tmp_path, name, hashed=hashed)
    assert action(tmp_path, file) == ("fetch", 0)
    path = put(tmp_path, file)
    assert action(tmp_path, file) == ("unchanged", 0)
    assert action(tmp_path, file, verify=True) == ("unchanged", len(DATA))
    change(path)
    assert action(tmp_path, file)[0] == wanted
    assert action(tmp_path, file, replace=True)[0] == wanted.replace("keep", "replace")


@pytest.mark.parametrize("hashed", [True, False])
def test_what_changed_at_the_source_is_replaced_unless_it_was_edited(
    tmp_path: Path, hashed: bool
) -> None:
    path = put(tmp_path, remote(tmp_path, "config.json", hashed=hashed))
    new = remote(tmp_path, "config.json", b'{"a": 7}', hashed=hashed)
    assert action(tmp_path, new)[0] == "replace"
    _edited(path)
    with pytest.raises(InputError, match=r"other files of these names: config\.json"):
        action(tmp_path, new)


def test_another_source_does_not_replace_silently(tmp_path: Path) -> None:
    put(tmp_path, remote(tmp_path, "config.json"), origin="another")
    new = remote(tmp_path, "config.json", b'{"a": 7}')
    with pytest.raises(InputError, match="it holds another;"):
        action(tmp_path, new)
    assert action(tmp_path, remote(tmp_path, "config.json"))[0] == "unchanged"


def test_without_hash_and_record_equal_length_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "config.json").write_bytes(DATA)
    with pytest.raises(InputError, match="other files"):
        action(tmp_path, remote(tmp_path, "config.json", hashed=False))


def test_patterns() -> None:
    names = ["a.json", "b.bin", "original/a.json", "sub/b.bin"]
    listing = Listing("hub", "", [RemoteFile(name, "") for name in names])

    def chosen(include: list[str], exclude: list[str]) -> list[str]:
        return [file.name for file in download_plan.selected(listing, include, exclude)[0]]

    assert chosen([], []) == names
    assert chosen([], ["*.bin", "original/*"]) == ["a.json"]
    assert chosen(["*.json"], []) == ["a.json", "original/a.json"]
    assert chosen(["sub/*"], []) == ["sub/b.bin"]
    with pytest.raises(InputError, match="choose none of its 4 files"):
        chosen(["*.txt"], [])


def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path) -> None:
    file = remote(tmp_path, "config.json")
    put(tmp_path, file)
    (tmp_path / "target" / ".download" / "record.json").write_text('{"files": {"config.json": 1}}')
    assert download_plan.read_record(tmp_path / "target").files == {}
    assert action(tmp_path, file) == ("unchanged", len(DATA))  # read again
