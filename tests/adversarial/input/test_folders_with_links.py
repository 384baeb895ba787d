"""A folder that weights are fetched from gives what lies in it: a link out of it is refused by
name, whether it is absolute, leads up by .., by way of another link, or is the list of checksums.
"""

from __future__ import annotations

import os
from pathlib import Path

import download_weights
import pytest

from omnikit.weights.download.source import of_folder

SECRET = "0123456789abcdef of somebody else\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "secret.json").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.json").write_text(SECRET)
    made = tmp_path / "source"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def links(source: Path) -> dict[str, str]:
    """Name to where it leads."""
    return {
        "absolute.json": str(source.parent / "secret.json"),
        "up.json": "../secret.json",
        "round.json": "../source/../secret.json",
        "twice.json": ".hidden",
    }


def test_links_out_of_it_are_refused_by_name_and_nothing_of_them_is_copied(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / ".hidden").symlink_to("../secret.json")
    for name, to in links(source).items():
        (source / name).symlink_to(to)
        words = ["--source", str(source), "--target", str(tmp_path / "new"), "--include", "*"]
        code = download_weights.main(words)
        said = capsys.readouterr()
        assert code != 0
        assert f"{name} (a link that leads out of the folder" in said.err
        assert SECRET.strip() not in said.out + said.err
        (source / name).unlink()
    left = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert all(SECRET not in path.read_text() for path in left)


def test_folders_behind_links_loops_and_pipes(source: Path) -> None:
    """None is followed or waited for; those that are no folder are named."""
    (source / "sub").symlink_to("../outside")
    (source / "self").symlink_to(".")
    (source / "loop.json").symlink_to("loop.json")
    (source / "good.json").symlink_to("config.json")
    os.mkfifo(source / "pipe.json")
    found = of_folder(source, None)
    assert [file.name for file in found.files] == ["config.json", "good.json"]
    assert found.lost == {
        "loop.json": "a link that leads to no file",
        "pipe.json": "no regular file",
    }
    assert len(found.notes) == 2


def test_a_list_of_checksums_outside_is_not_read(source: Path) -> None:
    (source / "SHA256SUMS").symlink_to("../secret.json")
    assert [file.hash for file in of_folder(source, None).files] == [""]


def test_a_snapshot_in_a_hubs_cache_is_whole(tmp_path: Path) -> None:
    """Its links lead to the blobs of the same repository, and to no other."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    for folder in (snapshot, snapshot.parents[1] / "blobs", tmp_path / "models--c" / "blobs"):
        folder.mkdir(parents=True)
        (folder / "blob").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/blob")
    (snapshot / "other.json").symlink_to("../../../models--c/blobs/blob")
    found = of_folder(snapshot, None)
    assert [file.name for file in found.files] == ["blob", "config.json"]
    assert list(found.lost) == ["other.json"]
