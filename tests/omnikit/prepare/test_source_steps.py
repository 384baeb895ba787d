"""The steps sync_code and pip_install: what they concern. Done for real in test_deploy_source."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config as config_config
from omnikit.config.config import Config
from omnikit.prepare import look, source_steps
from omnikit.prepare.source_steps import STEPS, choose, named
from omnikit.topology.topology import make_plan

FLEET = """
profile: {engine: ascend, omni_version: v0.4.1, model: deepseek-r1-w8a8}
keys: {private_key: /k, known_hosts: /h}
hosts:
  p0: {address: 192.0.2.1}
  d0: {address: 192.0.2.2}
  x: {address: 192.0.2.3}
topology:
  prefill: [{hosts: [p0]}]
  decode: [{hosts: [d0]}]
  proxy: x
"""


def config_of(tmp_path: Path, more: str = "") -> Config:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET + more)
    return config_config.load(str(path))


def test_hosts_with_servers_alone_get_the_source(tmp_path: Path) -> None:
    assert source_steps.hosts_of(make_plan(config_of(tmp_path))) == ["p0", "d0"]


def test_nothing_is_looked_at_where_nothing_is_copied(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    found = source_steps.look(config, make_plan(config), {"sync_code"}, asked=False)
    assert (found.source, found.lines, found.about) == (None, {}, {})
    with pytest.raises(InputError, match="paths"):
        source_steps.look(config, make_plan(config), {"sync_code"}, asked=True)


def test_a_changed_source_restarts_what_runs_on_that_host(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path))
    actions = {"p0": {"p0": "unchanged"}, "d0": {"d0": "start"}, "x": {"c0": "unchanged"}}
    found = look.Look(
        {name: what for one in actions.values() for name, what in one.items()}, hosts=actions
    )
    made = source_steps.SourceLook(used={"p0": "omni/a.py", "d0": "omni/a.py"})
    source_steps.restarts(found, made, plan)
    assert found.actions == {"p0": "restart", "d0": "start", "c0": "unchanged"}
    assert found.replaces == ["p0"]
    assert found.reasons == {"p0": "its source changes: omni/a.py"}


def test_each_container_of_a_host_is_a_place_to_install_into(tmp_path: Path) -> None:
    text = "paths: {code_dir: /data/omniinfer, local_code_dir: /src}\nruntime: docker\n"
    config = config_of(tmp_path, text)
    given = source_steps.parameters(config, make_plan(config), ["p0"])["p0"]
    assert given["dir"] == "/data/omniinfer"
    assert list(given["editable"]) == ["infer_engines/vllm", "."]
    assert given["editable"]["infer_engines/vllm"]["SETUPTOOLS_SCM_PRETEND_VERSION"] == "0.9.0"
    [place] = given["places"]
    assert place["container"] == "omnikit_fleet_p0" and place["engine"] == "auto"


def test_without_a_folder_there_is_nothing_to_install_from(tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path))
    config = config_of(tmp_path, "paths: {code_dir: null}\n")
    with pytest.raises(InputError, match=r"paths\.code_dir: no folder is set"):
        source_steps.parameters(config, plan, ["p0"])


def test_all_without_a_choice() -> None:
    assert choose() == frozenset(STEPS)


def test_tags_choose_and_skip_tags_leave_out() -> None:
    assert choose("ranktable, run-server") == {"ranktable", "run_server"}
    assert choose(skip="run_docker") == frozenset(STEPS) - {"run_docker"}
    assert choose("run_server,run_proxy", "run_proxy") == {"run_server"}


def test_named_are_only_those_that_were_asked_for() -> None:
    assert named("") == frozenset()
    assert named("sync-code") == {"sync_code"}


def test_a_name_that_is_no_step_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="'run_servers'") as caught:
        choose("run_servers")
    assert "run_server" in str(caught.value.todo) and caught.value.where == "--tags"


def test_the_other_verbs_are_tasks_of_their_own() -> None:
    with pytest.raises(InputError, match="no part") as caught:
        choose("stop_server")
    assert "invoke stop" in str(caught.value.todo)


def test_leaving_out_what_is_no_part_anyway_is_no_mistake() -> None:
    assert choose(skip="fetch_log,sync_code") == frozenset(STEPS) - {"sync_code"}
