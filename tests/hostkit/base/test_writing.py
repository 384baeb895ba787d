"""Files of a result: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.writing import unwritten, written


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
