"""Which files are missing, which are right, and how much is to come."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from omnikit.errors import InputError
from omnikit.weights import download_run
from omnikit.weights.download_sources import Remote

DIGEST = hashlib.sha256(b"data").hexdigest()


def record(target: Path, name: str, **changes: object) -> None:
    told = (target / name).stat()
    known = {"size": told.st_size, "mtime_ns": told.st_mtime_ns, "sha256": DIGEST, "state": "s"}
    (target / ".download").mkdir(exist_ok=True)
    text = json.dumps({name: {**known, **changes}})
    (target / ".download" / "files.json").write_text(text)


@pytest.mark.parametrize(
    ("remote", "changes", "there"),
    [
        (Remote("a", "u", 4, DIGEST, "t"), {}, True),  # the same hash, whatever its state
        (Remote("a", "u", 4, "0" * 64, "s"), {}, False),
        (Remote("a", "u", 5, None, "s"), {}, False),
        (Remote("a", "u", 4, None, "s"), {}, True),
        (Remote("a", "u", 4, None, "t"), {}, False),  # changed there
        (Remote("a", "u", 4, DIGEST, "s"), {"mtime_ns": 1}, True),  # touched: read again
        (Remote("a", "u", 4, None, "s"), {"mtime_ns": 1, "sha256": "1" * 64}, False),
        (Remote("a", "u", None, None, "s"), {}, True),
    ],
)
def test_a_file_is_right_when_all_that_is_known_says_so(
    tmp_path: Path, remote: Remote, changes: dict[str, object], there: bool
) -> None:
    (tmp_path / "a").write_bytes(b"data")
    record(tmp_path, "a", **changes)
    need = download_run.look(tmp_path, [remote])
    assert bool(need.there) == there and bool(need.todo) != there


def test_equal_length_alone_makes_no_file_right(tmp_path: Path) -> None:
    """No hash is published and no download of ours has brought it: it may be another model's."""
    (tmp_path / "a").write_bytes(b"data")
    assert download_run.look(tmp_path, [Remote("a", "u", 4, None, "s")]).todo
    assert download_run.look(tmp_path, [Remote("a", "u", 4, DIGEST)]).there


def test_what_came_already_is_not_to_come(tmp_path: Path) -> None:
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "b.part").write_bytes(b"123")
    files = [Remote("b", "u", 10), Remote("c", "u", 7), Remote("d", "u", None)]
    assert download_run.look(tmp_path, files).bytes == 14
    with pytest.raises(InputError, match="needs"):
        download_run.check_space(tmp_path, download_run.Need([], [], 1 << 60))


def test_patterns() -> None:
    files = [Remote(name, "u") for name in ("a.json", "b.json", "c.bin")]
    assert len(download_run.chosen(files, [], [])) == 3
    assert [one.name for one in download_run.chosen(files, ["*.json"], ["b*"])] == ["a.json"]
    with pytest.raises(InputError, match="none of 3"):
        download_run.chosen(files, [], ["*"])
