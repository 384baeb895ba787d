"""Merging of layers, and finding their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config, layers
from omnikit.config.layers import control_folder
from omnikit.yaml.node import Node
from omnikit.yaml.strict_yaml import parse


def tree(text: str, layer: int = 0) -> Node:
    return parse(text, f"file{layer}", layer)


@pytest.mark.parametrize(
    ("low", "high", "merged"),
    [
        ("a: {b: 1, c: 2}", "a: {c: 3}", {"a": {"b": 1, "c": 3}}),
        ("a: [1, 2]", "a: [3]", {"a": [3]}),
        ("a: {b: 1}", "a: 5", {"a": 5}),
        ("a: 5", "a: {b: 1}", {"a": {"b": 1}}),
        ("a: {b: 1}", "a: null", {"a": None}),
        ("args: {a_b: 1}", "args: {a-b: 2}", {"args": {"a_b": 2}}),
        ("other: {a_b: 1}", "other: {a-b: 2}", {"other": {"a_b": 1, "a-b": 2}}),
    ],
)
def test_maps_merge_and_everything_else_replaces(low: str, high: str, merged: Any) -> None:
    assert layers.merge(tree(low), tree(high, 1)).plain() == merged


def test_a_merged_value_keeps_its_own_origin() -> None:
    made = layers.merge(tree("a: 1\nb: 2\n"), tree("# comment\nb: 3\n", 1))
    assert str(made.at(("a",)).origin) == "file0:1"
    assert str(made.at(("b",)).origin) == "file1:2"
    assert str(made.key_origins["b"]) == "file1:2"


def test_the_lower_tree_is_not_changed_by_merging() -> None:
    low = tree("a: {b: 1}")
    layers.merge(low, tree("a: {b: 2, c: 3}", 1))
    assert low.plain() == {"a": {"b": 1}}


def test_a_higher_layer_beats_a_more_specific_part() -> None:
    general, role = tree("x: high\ny: 1", 5), tree("x: low\ny: 2", 3)
    assert layers.most_specific([general, role]).plain() == {"x": "high", "y": 1}


def test_within_a_layer_the_more_specific_part_wins() -> None:
    general, role = tree("x: 1\nargs: {a_b: 1, c: 1}", 3), tree("x: 2\nargs: {a-b: 2}", 3)
    made = layers.most_specific([general, None, role])
    assert made.plain() == {"x": 2, "args": {"a_b": 2, "c": 1}}


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(InputError) as caught:
        layers.environment_file("locl", "--environment")
    assert caught.value.where == "--environment"
    assert "is it 'local'?" in caught.value.what
    assert "colocated, local" in str(caught.value.todo)


@pytest.mark.parametrize("name", ["..", "x" * 300, "a\nb", "$(id)", "-x", " "])
def test_no_name_reaches_a_file_outside(name: str) -> None:
    with pytest.raises(InputError, match="there is no environment named"):
        layers.environment_file(name, "--environment")


@pytest.mark.parametrize("name", ["../environments/local", "/etc/passwd", "nope"])
def test_a_profile_names_a_file_of_its_folder_only(name: str) -> None:
    with pytest.raises(InputError, match="there is no engine named") as caught:
        layers.chosen_files([layers.defaults(), tree(f"profile: {{engine: {name}}}", 4)])
    assert caught.value.where == "file4:1"
    assert "configs/engines/NAME.local.yaml" in str(caught.value.todo)


def test_a_chosen_file_can_choose_the_next() -> None:
    made = layers.chosen_files([layers.defaults(), tree("profile: {engine: cpu}", 4)])
    assert [node.origin.layer for node in made] == [layers.ENGINE, layers.VERSION, layers.MODEL]
    assert made[0].at(("engine", "device_kind")).value == "none"


def test_local_files_are_found_by_their_ending(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(layers, "PROJECT", tmp_path)
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path / "site"))
    for folder in ("configs", "site"):
        (tmp_path / folder).mkdir()
        for name in ("b.local.yaml", "a.local.yaml", "c.yaml"):
            (tmp_path / folder / name).write_text("a: 1\n")
    both = ["a.local.yaml", "b.local.yaml"]
    assert layers.local_files() == [tmp_path / "site" / name for name in both]
    monkeypatch.delenv(layers.SITE_FOLDER)
    assert layers.local_files() == [tmp_path / "configs" / name for name in both]


def test_a_site_has_its_own_records_and_must_be_there(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path))
    assert control_folder("local") == tmp_path / "control" / "local"
    monkeypatch.setenv(layers.SITE_FOLDER, str(tmp_path / "my site"))
    for asked in (layers.local_files, lambda: control_folder("local")):
        with pytest.raises(InputError) as caught:
            asked()
        assert f"{layers.SITE_FOLDER}: there is no folder {tmp_path}/my site" in str(caught.value)
        assert caught.value.todo == f"make it: mkdir '{tmp_path}/my site'"
    monkeypatch.delenv(layers.SITE_FOLDER)
    assert control_folder("local") == layers.PROJECT / "build" / "control" / "local"


def test_a_file_is_merged_over_the_one_that_it_is_based_on(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("a: 1\nb: 2\n")
    (tmp_path / "high.yaml").write_text("based_on: low\nb: 3\n")
    made = layers.read_file(tmp_path / "high.yaml", 4)
    assert made.plain() == {"a": 1, "b": 3}
    assert str(made.at(("a",)).origin) == f"{tmp_path}/low.yaml:1"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../x", "expected the name of a file beside this one"),
        ("", "expected the name of a file beside this one"),
        ("[a]", "expected the name of a file beside this one"),
        ("self", "based on each other"),
        ("nope", "there is no environment named 'nope'"),
        ("'a\\0b'", "there is no environment"),
    ],
)
def test_a_base_that_cannot_be_is_refused(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "self.yaml").write_text(f"# comment\nbased_on: {name}\n")
    with pytest.raises(InputError, match=what) as caught:
        layers.read_file(tmp_path / "self.yaml", 4)
    assert caught.value.where == f"{tmp_path}/self.yaml:2"


LAYOUT = """profile: {engine: ascend, omni_version: %s, model: openpangu-2.0-flash}
hosts: {p0: {address: 10.0.0.1}, d0: {address: 10.0.0.3}}
topology: {prefill: [{hosts: [p0]}], decode: [{hosts: [d0]}], proxy: p0}
"""


def load(folder: Path, release: str, more: str = "") -> config.Config:
    file = folder / "site.yaml"
    file.write_text(LAYOUT % f"'{release}'" + more, encoding="utf-8")
    return config.load(str(file), environ={})


def variables(loaded: config.Config, role: str = "prefill") -> dict[str, object]:
    return dict(loaded.server_for(role, 0, {"prefill": "p0", "decode": "d0"}[role])[0].env)


def test_a_release_gives_variables_of_the_model_and_of_older_releases_new_names(
    tmp_path: Path,
) -> None:
    before = variables(load(tmp_path, "2026-06"))
    now = variables(load(tmp_path, "2026-09"))
    names = {"ROLE": "OMNI_PD_ROLE", "HYBRID_ATTN_GROUP_SIZE": "OMNI_HYBRID_ATTN_GROUP_SIZE"}
    for old, new in names.items():
        assert old in before and new not in before
        assert old not in now and now[new] == before[old]
    assert now["OMNI_VLLM_PATCHES_DIR"] == "low_latency"  # the new name is said, and counts


def test_who_sets_a_variable_by_its_old_name_sets_the_new_one(tmp_path: Path) -> None:
    more = "roles: {decode: {server: {env: {HYBRID_ATTN_GROUP_SIZE: 5}}}}\n"
    loaded = load(tmp_path, "2026-09", more)
    own = LAYOUT.replace("[d0]}", "[d0], server: {env: {ROLE: mine}}}") % "2026-09"
    apart = config.load(str(write(tmp_path, own, "own.yaml")), environ={})
    assert variables(apart, "decode")["OMNI_PD_ROLE"] == "mine"
    assert variables(loaded, "decode")["OMNI_HYBRID_ATTN_GROUP_SIZE"] == 5
    _, tree = loaded.server_for("decode", 0, "d0")
    place = tree.at(("env", "OMNI_HYBRID_ATTN_GROUP_SIZE")).origin
    assert str(place).endswith("site.yaml:4")


def test_what_a_release_has_no_use_for_leaves_the_model_alone(tmp_path: Path) -> None:
    def args(loaded: config.Config) -> dict[str, object]:
        return dict(loaded.server_for("decode", 0, "d0")[0].args)

    assert "mamba-block-size" not in args(load(tmp_path, "2026-06"))
    assert args(load(tmp_path, "2026-09"))["mamba-block-size"] == 128
    # Who asks for it has it: the engine says whether it knows it.
    asked = load(tmp_path, "2026-06", "server: {args: {mamba-block-size: 64}}\n")
    assert args(asked)["mamba-block-size"] == 64


def test_experts_are_placed_in_one_place_by_each_release(tmp_path: Path) -> None:
    for release, in_file, in_words in (
        ("v0.5.0", True, False),
        ("2025-10", False, True),
        ("2026-03", None, True),
    ):
        given = [f"profile.omni_version={release}"]
        server = config.load("2p1d", [], given, environ={}).server_for("prefill", 0, "p0")[0]
        extra = server.files.get("model_extra_config.json")
        told = extra and "use_omni_placement" in extra["operator_optimizition_config"]
        assert told == in_file
        assert ("enable_omni_placement" in server.args.get("additional-config", {})) == in_words


@pytest.mark.parametrize("path", ["roles..server", "a.", '"a'])
def test_a_malformed_path_is_refused_with_its_place(path: str, tmp_path: Path) -> None:
    more = f"release: {{without: ['{path}']}}\n"
    with pytest.raises(
        InputError, match=r"site\.yaml:4: release\.without: .*expected section\.key"
    ):
        load(tmp_path, "2026-06", more)
