"""What a server's compiled code depends on, of all that is planned, and where it is to be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.prepare.deployment import prepare
from omnikit.topology.topology import make_plan

USE = ("caches.use=true", "caches.variables=[VLLM_CACHE_ROOT]")


def compiled(environment: str, *assignments: str) -> dict[str, Any]:
    loaded = config.load(environment, assignments=[*USE, *assignments], environ={})
    return {node.name: node.compiled for node in make_plan(loaded).nodes}


def test_equal_servers_have_one_key_and_roles_have_their_own() -> None:
    found = compiled("18p1d")
    assert len({json.dumps(one, sort_keys=True) for one in found.values()}) == 2
    assert found["p0"] == found["p17"] and found["d0"] == found["d17"]
    text = json.dumps(found["d0"])
    assert "${plan.host_ip}" in text and "192.0.2." not in text


def test_an_instance_that_is_added_changes_no_key() -> None:
    found, one = compiled("2p1d"), "topology.prefill=[{hosts: [p0]}]"
    fewer = compiled("2p1d", one)
    assert list(fewer) == ["p0", "d0", "d1"]
    assert fewer == {name: found[name] for name in fewer}


@pytest.mark.parametrize(
    "change",
    [
        "server.args.max-model-len=8",
        "server.env.TASK_QUEUE_ENABLE=0",
        "roles.prefill.server.files.x={a: 1}",
        "server.prepend.PYTHONPATH=/patched",
        "model.path=/data/another",
        "devices=0-7",
    ],
)
def test_what_may_be_compiled_in_changes_the_key(change: str) -> None:
    assert compiled("2p1d", change)["p0"] != compiled("2p1d")["p0"]


@pytest.mark.parametrize(
    "change",
    ["server.env.VLLM_LOGGING_LEVEL=DEBUG", "paths.log_dir=/data/l", "ports.api_base=9500"],
)
def test_what_is_not_compiled_in_does_not(change: str) -> None:
    assert compiled("2p1d", change)["p0"] == compiled("2p1d")["p0"]


def test_secrets_are_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("LEAK")
    secret = f"server.env.TOKEN={{file: {tmp_path}/key}}"
    assert compiled("2p1d", secret) == compiled("2p1d")


def test_the_start_script_asks_the_host_for_the_folder() -> None:
    loaded = config.load("2p1d", assignments=USE, environ={})
    files = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files["p0"]
    script = files["p0/start.sh"]
    assert "cache=$(</data/omnikit/caches/of/p0)\n" in script
    assert 'export VLLM_CACHE_ROOT="$cache"/VLLM_CACHE_ROOT\n' in script
    [node, _] = json.loads(files["host.json"])["nodes"]
    assert node["cache"]["variables"] == ["VLLM_CACHE_ROOT"] and node["cache"]["ranks"] == [0]


def test_without_it_nothing_is_said_of_caches() -> None:
    loaded = config.load("2p1d", environ={})
    files = prepare(loaded, {}, {"kind": "omni-nginx"}, {}).files["p0"]
    assert "/caches/" not in "".join(files.values()) and '"cache"' not in files["host.json"]


def test_an_engine_whose_variable_is_not_known_is_refused() -> None:
    loaded = config.load("local", assignments=["caches.use=true"], environ={})
    with pytest.raises(InputError, match="no variable of this engine is known") as caught:
        make_plan(loaded)
    assert "caches.variables=[VLLM_CACHE_ROOT]" in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "release", "use", "first"),
    [
        ("ascend", "'2026-06'", False, "VLLM_CACHE_ROOT"),  # which upstream removes itself
        ("vllm-ascend", "vllm-ascend-v0.23.0", True, "VLLM_CACHE_ROOT"),
    ],
)
def test_releases_say_what_is_known_of_them(
    engine: str, release: str, use: bool, first: str
) -> None:
    chosen = f"profile={{engine: {engine}, omni_version: {release}}}"
    caches = config.load("2p1d", assignments=[chosen], environ={}).settings.caches
    assert (caches.use, caches.variables[0]) == (use, first)


def test_a_variable_that_the_user_sets_stays_as_it_is() -> None:
    both = "caches.variables=[VLLM_CACHE_ROOT, TRITON_CACHE_DIR]"
    own = [USE[0], both, "server.env.VLLM_CACHE_ROOT=/own"]
    env = make_plan(config.load("2p1d", assignments=own, environ={})).nodes[0].env
    assert env["VLLM_CACHE_ROOT"] == "/own"
    assert env["TRITON_CACHE_DIR"] == "${host.cache}/TRITON_CACHE_DIR"
