"""What a release calls otherwise, and what it has no use for, in settings written for others."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import write

from hostkit.base.errors import InputError
from omnikit.config import config

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
