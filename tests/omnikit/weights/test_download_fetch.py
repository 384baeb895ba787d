"""One file fetched from a disk: parts of another state are not used."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from omnikit.errors import ActionError, InputError
from omnikit.weights.download_fetch import Fetcher
from omnikit.weights.download_sources import Remote


def fetcher(came: list[int], stop: threading.Event) -> Fetcher:
    return Fetcher({}, 2, 0.01, 5, stop, came.append, lambda line: None)


def test_a_part_is_gone_on_with_and_its_bytes_are_not_read_again(tmp_path: Path) -> None:
    source, part = tmp_path / "source", tmp_path / "x.part"
    source.write_bytes(b"0123456789")
    told = source.stat()
    part.write_bytes(b"01234")
    tag = tmp_path / "x.part.tag"
    tag.write_text(f"{told.st_size} {told.st_mtime_ns}")
    came: list[int] = []
    digest = fetcher(came, threading.Event()).fetch(Remote("x", str(source), 10), part)
    assert digest == hashlib.sha256(b"0123456789").hexdigest() and came == [5]
    os.utime(source, (1, 1))
    part.write_bytes(b"other")
    fetcher(came, threading.Event()).fetch(Remote("x", str(source), 10), part)
    assert part.read_bytes() == b"0123456789" and came == [5, -5, 10]


def test_what_is_not_as_published_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    part = tmp_path / "x.part"
    for remote in (
        Remote("x", str(tmp_path / "source"), 9),
        Remote("x", str(tmp_path / "source"), 10, "0" * 64),
    ):
        with pytest.raises(ActionError, match="not taken"):
            fetcher([], threading.Event()).fetch(remote, part)
        assert not part.exists()


def test_a_source_that_cannot_be_read_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        fetcher([], threading.Event()).fetch(Remote("x", str(tmp_path / "no")), tmp_path / "p")
