"""Files are replaced whole, originals are kept and come back, links are not written through."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_case import CONFIG_TEXT, MODELING, make

from hostkit.base.errors import ActionError, InputError
from omnikit.weights.msmodelslim import edits
from omnikit.weights.msmodelslim.edits import apply, plan, plan_revert

EDITS = edits.before()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "DeepSeek-R1")


def state(folder: Path) -> dict[str, object]:
    """Every file: its content or where it leads, its mode and when it was written."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.lstat().st_mode,
                    path.readlink() if path.is_symlink() else None)
        for path in folder.iterdir()
    }  # fmt: skip


def test_a_plan_changes_nothing_and_shows_the_difference(folder: Path) -> None:
    before = state(folder)
    changes = plan(folder, EDITS)
    assert state(folder) == before
    diff = changes[0].diff
    assert diff.startswith("--- modeling_deepseek.py.orig\n+++ modeling_deepseek.py\n@@")
    assert "-    is_flash_attn_2_available,\n+    # is_flash_attn_2_available,\n" in diff


def test_edited_kept_and_a_second_time_unchanged(folder: Path) -> None:
    (folder / "config.json").chmod(0o640)
    apply(plan(folder, EDITS))
    assert (folder / "modeling_deepseek.py.orig").read_bytes() == MODELING.encode()
    assert (folder / "config.json.orig").read_text() == CONFIG_TEXT
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o640
    before = state(folder)
    again = plan(folder, EDITS)
    apply(again)
    assert [change.done for change in again] == [(), ()]
    assert state(folder) == before


def test_back_to_the_original(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    apply(plan(folder, EDITS))
    changes = plan_revert(folder, EDITS)
    assert "+++ modeling_deepseek.py.orig" in changes[0].diff
    apply(changes)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [change.done for change in plan_revert(folder, EDITS)] == [(), ()]


def test_an_edited_file_that_is_gone_comes_back(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    apply(plan(folder, EDITS))
    (folder / "config.json").unlink()
    changes = plan_revert(folder, EDITS)
    assert '+  "architectures": [' in changes[1].diff
    apply(changes)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "config.json").unlink()  # and has no original
    with pytest.raises(InputError, match="cannot be read: No such file"):
        plan_revert(folder, EDITS)


def test_links_into_a_cache_are_replaced_and_come_back(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name in EDITS:
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(Path("..") / "blobs" / name)
    cached, links = state(blobs), state(folder)
    apply(plan(folder, EDITS))
    assert state(blobs) == cached
    assert not (folder / "config.json").is_symlink()
    assert (folder / "config.json.orig").readlink() == Path("../blobs/config.json")
    assert [change.done for change in plan(folder, EDITS)] == [(), ()]
    apply(plan_revert(folder, EDITS))
    assert state(folder) == links


def test_a_run_that_was_cut_off_is_gone_on_with(folder: Path) -> None:
    (folder / "config.json.orig").write_text(CONFIG_TEXT)
    apply(plan(folder, EDITS))
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert (folder / "config.json.orig").read_text() == CONFIG_TEXT


def test_another_original_is_not_lost(folder: Path) -> None:
    (folder / "config.json.orig").write_text("{}")
    before = state(folder)
    with pytest.raises(InputError, match="is not this file as it is now"):
        plan(folder, EDITS)
    assert state(folder) == before


def test_later_changes_of_the_user_are_not_lost(folder: Path) -> None:
    apply(plan(folder, EDITS))
    with (folder / "modeling_deepseek.py").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(InputError, match="has changes besides those of this tool"):
        plan_revert(folder, EDITS)


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_changed(folder: Path) -> None:
    (folder / "modeling_deepseek.py").write_bytes(b"\xff")
    (folder / "config.json").unlink()
    with pytest.raises(InputError) as raised:
        plan(folder, EDITS)
    assert "is no UTF-8 text" in str(raised.value)
    assert "What to do: download it again: as published it is UTF-8" in str(raised.value)
    assert "cannot be read: No such file" in str(raised.value)


def test_a_place_that_cannot_be_written_is_a_failure_not_a_traceback(folder: Path) -> None:
    changes = plan(folder, EDITS)
    folder.rename(folder.with_name("away"))
    with pytest.raises(ActionError, match="cannot be replaced: No such file"):
        apply(changes)
