"""The model folder: whole, repeatable, verified, and no other folder is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostkit.base.errors import ActionError, InputError
from omnikit.engine import tiny_model

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tiny-model-manifest.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_new_folder_is_complete_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "models" / "tiny"
    assert tiny_model.make(out, 0).state == "missing"
    assert set(content(out)) == FILES
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        tiny_model.make(tmp_path / name, 7)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    tiny_model.make(out, 0)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert tiny_model.make(out, 0).state == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("name", sorted(FILES - {"tiny-model-manifest.json"}))
def test_a_damaged_file_is_named_and_rewritten(tmp_path: Path, name: str) -> None:
    out = tmp_path / "tiny"
    tiny_model.make(out, 0)
    whole = content(out)
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    found = tiny_model.make(out, 0)
    assert (found.state, found.differences) == ("different", (f"{name} is damaged",))
    assert content(out) == whole


def test_a_missing_file_is_rewritten(tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    tiny_model.make(out, 0)
    (out / "model.safetensors").unlink()
    assert tiny_model.make(out, 0).differences == ("model.safetensors is missing",)
    assert tiny_model.status(out, 0).state == "unchanged"


def test_another_seed_is_a_difference(tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    tiny_model.make(out, 0)
    assert tiny_model.make(out, 1).differences == ("seed 0, wanted 1",)
    assert tiny_model.status(out, 1).state == "unchanged"


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("precious")
    with pytest.raises(InputError, match="not made by this tool"):
        tiny_model.make(tmp_path, 0)
    assert content(tmp_path) == {"config.json": b"precious"}


def test_force_writes_our_files_and_keeps_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    tiny_model.make(tmp_path, 0, force=True)
    assert set(content(tmp_path)) == FILES | {"notes.txt"}
    assert tiny_model.status(tmp_path, 0).state == "unchanged"


def test_a_file_where_the_folder_should_be_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        tiny_model.make(tmp_path / "tiny", 0)


def test_a_place_that_cannot_be_written_is_an_action_error() -> None:
    with pytest.raises(ActionError, match="cannot write the model"):
        tiny_model.make(Path("/proc/tiny"), 0)


def test_token_ids_agree_between_the_files() -> None:
    files = tiny_model.build(0)
    config = json.loads(files["config.json"])
    tokens = {t["content"]: t["id"] for t in json.loads(files["tokenizer.json"])["added_tokens"]}
    assert tokens[json.loads(files["tokenizer_config.json"])["eos_token"]] in config["eos_token_id"]
    assert config["vocab_size"] == 256 + len(tokens)
    assert config["max_position_embeddings"] >= 8192
