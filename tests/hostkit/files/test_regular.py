"""A file that a user wants written: what is none is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from hostkit.files import regular


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a working folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_new_files_and_files_to_replace(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    for text in ("new", "./new", "old", "~/new", str(tmp_path / "new"), "not/yet/there/new"):
        assert regular.to_write(text, "--out").is_relative_to(tmp_path)
    assert not (tmp_path / "not").exists()


def test_a_link_is_followed_so_that_it_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "latest").symlink_to("real")
    (tmp_path / "ahead").symlink_to("not-yet")
    assert regular.to_write("latest", "--out") == tmp_path / "real"
    assert regular.to_write("ahead", "--out") == tmp_path / "not-yet"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the name of the file is empty"),
        (" ", "the name of the file is empty"),
        (".", "is a folder"),
        ("..", "is a folder"),
        ("/", "this names a folder"),
        ("new/", "this names a folder"),
        ("~", "is a folder"),
        ("~nobody-has-this-name/x", "this can be no file"),
        ("a\0b", "this can be no file"),
        ("x" * 5000, "this can be no file"),
        ("/dev/null", "no file on a disk"),
        ("/dev/stdout", "no file on a disk"),
        ("/dev/fd/1", "no file on a disk"),
        ("/proc/self/fd/1", "no file on a disk"),
        ("device", "no file on a disk"),
        ("loop", "a link that leads to itself"),
        ("pipe", "is no regular file"),
        ("old/new", "is a file, no folder"),
        ("old/more/new", "is a file, no folder"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "old").write_text("")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=said) as raised:
        regular.to_write(text, "--out")
    assert raised.value.where == f"--out {text!r}"
    assert raised.value.todo and "--out FILE" in raised.value.todo


def test_it_is_whole_and_of_its_owner_or_not_there(tmp_path: Path) -> None:
    regular.write(tmp_path / "new" / "r.html", "\u00fc\ud800")
    assert (tmp_path / "new" / "r.html").read_text(encoding="utf-8") == "\u00fc?"
    assert (tmp_path / "new" / "r.html").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_file_that_failed(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(error):
        regular.write(tmp_path / "r.html", "x")
    assert list(tmp_path.iterdir()) == []
