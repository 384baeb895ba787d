"""What each node's container is made of."""

from __future__ import annotations

from typing import Any

import pytest

from omnikit.config import config
from omnikit.plan.containers import container_name, host_specs, with_folders
from omnikit.topology.topology import make_plan


def planned(environment: str, *assignments: str) -> tuple[Any, Any]:
    loaded = config.load(environment, assignments=assignments, environ={})
    return loaded.settings, make_plan(loaded)


@pytest.mark.parametrize(
    ("mounts", "folders", "made"),
    [
        (["/data:/data"], ["/data/logs"], ["/data:/data"]),
        (["/data:/data"], ["/database"], ["/data:/data", "/database:/database"]),
        (["/data:/mnt"], ["/data/logs"], ["/data:/mnt", "/data/logs:/data/logs"]),
        (["/data:/data:ro"], ["/data"], ["/data:/data:ro"]),
        ([], ["/a", "/a/b", "/a"], ["/a:/a"]),
    ],
)
def test_a_folder_is_mounted_unless_it_shows_already(
    mounts: list[str], folders: list[str], made: list[str]
) -> None:
    assert with_folders(mounts, folders) == made


def test_each_node_and_the_proxy_have_a_container_of_their_own() -> None:
    settings, plan = planned("2p1d")
    own = {host.name: list(host_specs(settings, plan, host)) for host in plan.hosts}
    assert own == {
        "p0": ["omnikit_2p1d_p0", "omnikit_2p1d_c0"],
        "p1": ["omnikit_2p1d_p1"],
        "d0": ["omnikit_2p1d_d0"],
        "d1": ["omnikit_2p1d_d1"],
    }


def test_a_prefix_is_as_the_users_playbook_has_it() -> None:
    settings, plan = planned("2p1d", "container.prefix.prefill=omni_infer_prefill")
    assert plan.nodes[0].container == "omni_infer_prefill_p0"
    assert plan.nodes[2].container == "omnikit_2p1d_d0"
    assert container_name(settings, "x", "proxy", "c0") == "omnikit_x_c0"


def test_without_containers_there_are_none() -> None:
    settings, plan = planned("2p1d", "runtime=process")
    assert {node.container for node in plan.nodes} == {""}
    assert host_specs(settings, plan, plan.hosts[0]) == {}


def test_the_source_is_mounted_only_where_it_is_copied_to() -> None:
    settings, plan = planned("2p1d")
    assert settings.paths.code_dir == "/workspace/omniinfer"
    mounts = host_specs(settings, plan, plan.hosts[1])["omnikit_2p1d_p1"]["mounts"]
    assert "/workspace/omniinfer:/workspace/omniinfer" not in mounts  # it would hide the image's
    settings, plan = planned("2p1d", "paths.local_code_dir=/src/omniinfer")
    mounts = host_specs(settings, plan, plan.hosts[1])["omnikit_2p1d_p1"]["mounts"]
    assert "/workspace/omniinfer:/workspace/omniinfer" in mounts


def test_a_folder_for_traces_shows_in_the_containers_of_servers() -> None:
    name = "omnikit_2p1d_p0"
    settings, plan = planned("2p1d")
    usual = host_specs(settings, plan, plan.hosts[0])[name]["mounts"]
    settings, plan = planned("2p1d", "profiling.dir=/big/traces")
    specs = host_specs(settings, plan, plan.hosts[0])
    assert [m for m in specs[name]["mounts"] if m not in usual] == ["/big/traces:/big/traces"]
    assert "/big/traces:/big/traces" not in specs["omnikit_2p1d_c0"]["mounts"]
    settings, plan = planned("2p1d", "profiling.dir=/data/traces")  # /data is mounted
    assert host_specs(settings, plan, plan.hosts[0])[name]["mounts"] == usual


def test_in_containers_the_engine_is_the_images() -> None:
    _, plan = planned("local", "runtime=docker")
    assert plan.nodes[0].command[0] == "/opt/engine/bin/python"
    assert plan.nodes[0].env["VLLM_CACHE_ROOT"] == "/opt/engine/vllm-cache"
