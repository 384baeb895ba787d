"""Folders that must never be made equal to a source tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.copy import place


@pytest.mark.parametrize(
    "folder",
    [
        *("/", "//", "/data", "/root", "/home", "/home/ann", "/home/ann/", "/opt", "/tmp", "/var"),
        *("/usr/lib", "/usr/local", "/usr/local/lib", "/usr/share/x", "/etc/omni", "/dev/shm"),
        *("/proc/1", "/run/user", "/lib/modules/x", "relative/path", "/data/../etc/x", ""),
        *("/data/omnikit", "/data/omnikit/", "/data/models", "/srv/me"),
    ],
)
def test_refused(folder: str) -> None:
    keep = ["/data/omnikit", "/data/models/DeepSeek"]
    assert place.refusal(folder, keep, "/srv/me") is not None


@pytest.mark.parametrize(
    "folder",
    [
        *("/data/omniinfer", "/workspace/omniinfer", "/home/ann/omniinfer", "/root/omniinfer"),
        *("/usr/local/src/omni", "/usr/src/a/b", "/data/omnikit/code", "/data/od d'\"\n/x"),
    ],
)
def test_allowed(folder: str) -> None:
    assert place.refusal(folder, ["/data/omnikit", "/data/models/DeepSeek"], "/root") is None


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/lib")
    assert place.refusal_here(str(tmp_path / "link"), []) == "it belongs to the system"
    (tmp_path / "work").mkdir()
    (tmp_path / "same").symlink_to(tmp_path)
    why = place.refusal_here(str(tmp_path / "same"), [str(tmp_path / "work")])
    assert why is not None and "must stay" in why
    assert place.refusal_here(str(tmp_path / "new"), []) is None


def test_folders_inside_each_other(tmp_path: Path) -> None:
    assert place.nested(str(tmp_path), str(tmp_path / "a"))
    assert place.nested(str(tmp_path / "a"), str(tmp_path))
    assert not place.nested(str(tmp_path / "a"), str(tmp_path / "ab"))


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert place.nearest(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert place.free_bytes(str(tmp_path / "a" / "b")) > 0
