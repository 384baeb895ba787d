"""Which instances are profiled, and the settings with which they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, load, plan, write

from hostkit.base.errors import InputError
from omnikit.profile.recording import Options, nodes, profiled
from omnikit.topology.topology import make_plan


def names(folder: Path, options: Options) -> list[str]:
    return [node.name for node in nodes(plan(folder, FLEET), options)]


def test_by_role_and_by_name_and_always_whole_instances(tmp_path: Path) -> None:
    assert names(tmp_path, Options()) == ["p0", "p1", "d0", "d1"]
    assert names(tmp_path, Options("prefill")) == ["p0", "p1"]
    assert names(tmp_path, Options("prefill", ["p1"])) == ["p1"]
    assert names(tmp_path, Options("all", ["d1"])) == ["d0", "d1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options("all", ["p4"]), "there is no instance 'p4', is it 'p1'"),
        (Options("decode", ["p0"]), "no decode instance is among these"),
        (Options("colocated"), "no colocated instance"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, options: Options, said: str) -> None:
    with pytest.raises(InputError, match=said):
        names(tmp_path, options)


def test_the_settings_name_the_instances_and_keep_those_that_are_always_on(tmp_path: Path) -> None:
    sets = ["profiling.instances=[p0]", "profiling.steps=9"]
    now = load(tmp_path, FLEET, sets)
    file = str(write(tmp_path, FLEET))
    made, found = profiled(file, (), sets, now, Options("all", ["d0"], token_threshold=7))
    assert made.settings.profiling.instances == ["p0", "d0", "d1"]
    assert (made.settings.profiling.steps, made.settings.profiling.token_threshold) == (9, 7)
    assert [node.name for node in found] == ["d0", "d1"]


def test_a_threshold_is_refused_where_the_engine_has_none(tmp_path: Path) -> None:
    older = FLEET.replace("v0.4.1", '"2025-08"')
    file = str(write(tmp_path, older))
    with pytest.raises(InputError, match="this engine has no threshold"):
        profiled(file, (), (), load(tmp_path, older), Options(token_threshold=7))


def test_servers_are_told_by_the_release(tmp_path: Path) -> None:
    sets = ["profiling.instances=[p1]", "profiling.steps=3", "profiling.dir=/big/traces"]
    env = {node.name: node.env for node in plan(tmp_path, FLEET, sets).nodes}
    assert env["p1"]["VLLM_TORCH_PROFILER_DIR"] == "/big/traces/p1"
    assert env["p1"]["PROFILER_STOP_STEP"] == "3"
    assert not any("PROFILER" in key for name in ("p0", "d0", "d1") for key in env[name])
    older = FLEET.replace("v0.4.1", '"2025-08"')
    told = {node.name: node.env for node in plan(tmp_path, older, sets).nodes}["p1"]
    assert [key for key in told if "PROFILER" in key] == ["VLLM_TORCH_PROFILER_DIR"]


def test_a_relative_folder_is_for_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"profiling\.dir: found 'traces'"):
        plan(tmp_path, FLEET, ["profiling.dir=traces"])


def test_an_engine_without_a_profiler_names_the_setting(tmp_path: Path) -> None:
    none = FLEET.replace("v0.4.1", "none")
    with pytest.raises(InputError, match=r"profiling\.start: nothing is known") as raised:
        make_plan(load(tmp_path, none, ["profiling.instances=[p0]"]))
    assert "profiling.server" in str(raised.value) and "profile.omni_version" in str(raised.value)
