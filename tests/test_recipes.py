"""vllm-ascend's own recipes: imported, planned, and started as its launcher was recorded to do.

What differs stands in tests/facts/recorded/vllm-ascend-differences.yaml, each with its reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes import (
    FORMS,
    LAYOUTS,
    NAMES,
    RECIPES,
    VARIANTS,
    laid_out,
    launched,
    loaded,
    planned,
    planned_text,
)
from recorded_servers import RECORDED, Difference, Started, differences, harness, recorded

from hostkit.base.errors import InputError

SEEN = sorted(path.stem[len("vllm-ascend-") :] for path in RECORDED.glob("vllm-ascend-*.json"))
EXPLAINED = yaml.safe_load((RECORDED / "vllm-ascend-differences.yaml").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_planned_as_it_is(name: str) -> None:
    """As many servers as it has ranks, each with devices of its own, on the recipe's ports."""
    plan, _ = planned(name)
    written = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    wanted = {
        (f"10.0.0.{k + 1}", one["port_start"] + rank): (one["dp_rank_start"] + rank, one["tp_size"])
        for k, one in enumerate(written["config"])
        for rank in range(one["dp_size_local"])
    }
    made = {
        (node.address, server.api_port): (server.dp_rank, len(server.devices))
        for node in plan.nodes
        for server in node.servers
    }
    assert made == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_proxy_hands_over_as_the_connector_does(name: str) -> None:
    """Upstream's tests give the layerwise recipe the pull proxy, which prefill does not bear."""
    settings = loaded(name)
    way = "layerwise" if "layerwise" in name else "mooncake"
    assert settings.settings.proxy.kv_params == way
    origin = settings.origin("proxy", "kv_params")
    assert ("layerwise_PD.yaml" in str(origin)) == (way == "layerwise")


def test_a_proxy_that_hands_over_in_another_way_is_refused_with_both_places() -> None:
    name = "DeepSeek_V3.1T_layerwise_PD"
    for recipe_name, way, right in (
        (name, "mooncake", "layerwise"),
        (name, "none", "layerwise"),
        ("DeepSeek_V3.1T_MTP1_PD", "layerwise", "mooncake or nixl"),
        ("DeepSeek_V3.1T_MTP1_PD", "none", "mooncake or nixl"),
    ):
        with pytest.raises(InputError) as caught:
            planned(recipe_name, f"proxy.kv_params={way}")
        text = str(caught.value)
        assert f"proxy.kv_params is {way} (--set" in text
        assert f"{recipe_name}.yaml:" in text
        assert f"set proxy.kv_params to {right}" in text
    planned("DeepSeek_V3.1T_MTP1_PD", "proxy.kv_params=nixl")


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN)
def test_what_starts_is_what_upstreams_launcher_starts(name: str, tmp_path: Path) -> None:
    plan, _ = planned(
        name,
        f"paths.work_dir={tmp_path}/root/data",
        "runtime=process",
    )
    made = harness(tmp_path, plan)
    addresses = {node.name: node.address for node in plan.nodes}
    ours = {(addresses[name], port): one for (name, port), one in made.servers().items()}
    theirs = recorded(f"vllm-ascend-{name}")
    assert sorted(ours) == sorted(theirs)
    in_front = {node.address: node.prepend.get("LD_LIBRARY_PATH", "") for node in plan.nodes}
    for (address, _), server in theirs.items():
        for variable, value in server.env.items():  # of the launcher's own environment
            server.env[variable] = re.sub(r"\{\w+ of the launcher\}", "", value)
        # The one variable that the harness leaves out: the profile of an image sets it.
        assert in_front[address] == server.env.pop("LD_LIBRARY_PATH", "").rstrip(":")
    used, unexplained = set(), []
    for key, server in theirs.items():
        for found in differences(server, ours[key]):
            reasons = [k for k, entry in enumerate(EXPLAINED) if explains(entry, found, name)]
            used.update((k, found.name) for k in reasons)
            if not reasons:
                unexplained.append((*key, found))
    assert not unexplained, "\n".join(map(str, unexplained[:40]))
    for k, entry in enumerate(EXPLAINED):
        if name in entry.get("recordings", SEEN):
            gone = [one for one in entry["names"] if (k, one) not in used]
            assert not gone, f"no longer different: {gone} ({entry['reason']})"


TEXTS = {
    **{name: (RECIPES / f"{name}.yaml").read_text("utf-8") for name in NAMES},
    **VARIANTS,
    **FORMS,
    **{name: laid_out(*layout) for name, layout in LAYOUTS.items()},
}


@pytest.mark.parametrize("name", SEEN)
def test_upstreams_launcher_is_read_as_it_was_recorded(name: str) -> None:
    """So that its recipes, and other forms of them, can be held against it without a recording."""
    theirs, read = recorded(f"vllm-ascend-{name}"), launched(TEXTS[name])
    assert sorted(theirs) == sorted(read)
    for key, server in theirs.items():
        for variable, value in server.env.items():
            server.env[variable] = re.sub(r"\{\w+ of the launcher\}", "", value)
        assert differences(server, read[key]) == []


@pytest.mark.parametrize("name", TEXTS)
def test_each_server_is_told_what_upstreams_launcher_tells_it(name: str) -> None:
    plan, notes = planned_text(TEXTS[name], "it.yaml")
    theirs = launched(TEXTS[name])
    ours = {
        (node.address, server.api_port): Started(
            node.argv(server), {**node.environment(server), **node.prepend}, "/"
        )
        for node in plan.nodes
        for server in node.servers
    }
    assert sorted(ours) == sorted(theirs)
    for key, server in theirs.items():
        for variable in ours[key].env.keys() & {"LD_PRELOAD", "LD_LIBRARY_PATH"}:
            server.env[variable] = server.env[variable].rstrip(":")  # what was there is unknown
        for found in differences(server, ours[key]):
            word = f"{found.name} {found.recorded} is not used", f"{found.name} is left out"
            said = any(part in note for note in notes for part in word)
            assert said or any(explains(one, found, name) for one in EXPLAINED), (key, found)


def explains(entry: dict[str, Any], found: Difference, name: str) -> bool:
    """Whether a reviewed entry speaks of this difference."""
    if entry["kind"] != found.kind or found.name not in entry["names"]:
        return False
    if entry.get("same_numbers") and as_text(found.recorded) != as_text(found.ours):
        return False
    return name not in SEEN or name in entry.get("recordings", SEEN)


def as_text(value: Any) -> Any:
    """JSON with its numbers as text."""
    data = json.loads(value) if isinstance(value, str) and value[:1] == "{" else value
    if isinstance(data, dict):
        return {key: as_text(child) for key, child in data.items()}
    if isinstance(data, list):
        return [as_text(child) for child in data]
    return str(data) if isinstance(data, int) and not isinstance(data, bool) else data
