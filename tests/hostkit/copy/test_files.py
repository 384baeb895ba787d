"""Removing what the source has not, and errors of the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import ActionError
from hostkit.copy import files


def test_only_what_is_named_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "t" / "a" / "__pycache__").mkdir(parents=True)
    (tmp_path / "t" / "a" / "__pycache__" / "x.pyc").write_text("")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    (tmp_path / "t" / "link").symlink_to(tmp_path / "precious")
    files.remove(str(tmp_path / "t"), ["link", "a", "gone already"])
    assert not any((tmp_path / "t").iterdir()) and (tmp_path / "precious" / "file").exists()


def test_a_folder_that_is_not_empty_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a" / ".venv").mkdir(parents=True)
    with pytest.raises(ActionError, match=r"/a: .*not empty"), files.named(str(tmp_path)):
        files.remove(str(tmp_path), ["a"])


def test_what_rsync_left_goes(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "a"):
        (place / ".~tmp~").mkdir(parents=True)
        (place / ".~tmp~" / "half").write_text("")
    from hostkit.copy.tree import Entry

    files.remove_unfinished(str(tmp_path), {"a": Entry("d", 0o755, 0, 0, "")})
    assert list(tmp_path.iterdir()) == [tmp_path / "a"] and not any((tmp_path / "a").iterdir())
