"""What a folder of large files has, by its list and by what was found out before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from hostkit.spread import folder
from omnikit.weights.checkpoint import w8a8


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_bytes(b"{}")
    (place / "a.safetensors").write_bytes(b"a" * 1000)
    return place, {"dir": str(place), "work_dir": str(tmp_path / "work")}


def test_the_list_is_the_one_that_convert_weights_writes() -> None:
    assert folder.MANIFEST == w8a8.MANIFEST


def test_a_folder_without_a_list_is_offered_as_it_is_and_known_afterwards(tmp_path: Path) -> None:
    place, given = checkpoint(tmp_path)
    assert folder.look(given)["whole"] and folder.look(given)["by"] == ""
    first = folder.offer(given)
    assert first["files"]["a.safetensors"] == {"size": 1000, "sha256": sha(b"a" * 1000)}
    assert folder.look(given)["by"] == folder.OWN
    assert folder.offer(given)["read"] == 0, "nothing is read twice"
    (place / "a.safetensors").write_bytes(b"b" * 1000)
    assert folder.offer(given)["files"]["a.safetensors"]["sha256"] == sha(b"b" * 1000)


def test_a_file_that_is_not_what_the_list_says_is_not_given(tmp_path: Path) -> None:
    place, given = checkpoint(tmp_path)
    files = {"a.safetensors": {"sha256": sha(b"other")}, "config.json": {"sha256": sha(b"{}")}}
    (place / folder.MANIFEST).write_text(json.dumps({"files": files}))
    with pytest.raises(ActionError, match=r"a\.safetensors is not what omnikit-weights\.json says"):
        folder.offer(given)


def test_a_download_is_held_against_hashes_of_git_too(tmp_path: Path) -> None:
    place, given = checkpoint(tmp_path)
    (place / ".download").mkdir()
    git = hashlib.sha1(b"blob 2\0{}").hexdigest()
    files = {"config.json": {"hash": f"git:{git}"}, "a.safetensors": {"hash": ""}}
    (place / folder.DOWNLOADED).write_text(json.dumps({"files": files}))
    assert set(folder.offer(given)["files"]) == {"config.json", "a.safetensors"}
    (place / "config.json").write_bytes(b"[]")
    with pytest.raises(ActionError, match=r"config\.json"):
        folder.offer(given)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", ".hidden", "a/../b", "a\0"])
def test_a_list_that_names_what_lies_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    place, given = checkpoint(tmp_path)
    (place / folder.MANIFEST).write_text(json.dumps({"files": {name: {"sha256": "0"}}}))
    with pytest.raises(InputError, match="no file's name"):
        folder.offer(given)


def test_what_is_lacking_and_what_can_help(tmp_path: Path) -> None:
    place, given = checkpoint(tmp_path)
    files = folder.offer(given)["files"]
    target = tmp_path / "there" / "model"
    target.mkdir(parents=True)
    (target / "config.json").write_bytes(b"{}")
    (target / "old.safetensors").write_bytes(b"")
    (tmp_path / "there" / "before").mkdir()
    (tmp_path / "there" / "before" / "a.safetensors").write_bytes(b"a" * 999)
    found = folder.compare({**given, "dir": str(target), "files": files, "dry_run": True})
    assert found["have"] == ["config.json"] and found["missing"] == 1000
    assert found["strange"] == ["old.safetensors"]
    assert found["older"] == {"a.safetensors": str(tmp_path / "there/before/a.safetensors")}
    assert folder.stage(target, files, found["have"])
    assert (target / folder.STAGING / "a.safetensors").read_bytes() == b"a" * 999
    assert folder.wrong(place, files, lambda count: None) == []


def test_pieces_are_relied_on_only_within_one_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a": {"size": 1, "sha256": "x"}}
    folder.remember(tmp_path, files, [0, 9], 11)
    assert folder.remembered(tmp_path, files, 11) == [0, 9]
    assert folder.remembered(tmp_path, files, 30) is None
    assert folder.remembered(tmp_path, {}, 11) is None
    monkeypatch.setattr(folder, "boot", lambda: "another")
    assert folder.remembered(tmp_path, files, 11) is None
