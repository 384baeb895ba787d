"""Files of a result: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostkit.base.writing import unwritten, write_atomically, write_private, written


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    with written(path) as beside:
        assert beside.suffix == ".svg"
        beside.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError), written(path) as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "x" and list(tmp_path.iterdir()) == [path]
    with written(tmp_path / "nothing"):
        pass
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_names_place_and_remedy() -> None:
    said = str(unwritten(OSError(28, "No space left on device"), Path("/out")))
    assert said.startswith("/out: the result cannot be kept: No space left") and "--out" in said


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_nothing_is_written_to_what_another_user_planted(plant, tmp_path: Path) -> None:
    """The name of the file beside was that of the process: anybody can put links at all of them."""
    victim, path = tmp_path / "victim", tmp_path / "shared" / "a.json"
    victim.write_text("mine")
    path.parent.mkdir()
    for name in (f".a.json.{os.getpid()}", f".{os.getpid()}.a.json", "a.json"):
        plant(victim, path.with_name(name))
    write_atomically(path, "x")
    with written(path) as beside:
        assert not os.path.lexists(beside)
        beside.write_text("y")
    write_private(path, b"z")
    assert victim.read_text() == "mine" and path.read_text() == "z"
