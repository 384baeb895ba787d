"""Models of vllm-ascend as layers: planned on the layout that each is for, and held against the
recipe that it was made from; all its differences stand here.
"""

from __future__ import annotations

import re
from pathlib import Path

import outside
import pytest
import recipes
import yaml
from recorded_servers import Started, differences

from omnikit.config import config
from omnikit.config.layers import PROJECT
from omnikit.plan.types import Plan
from omnikit.topology.topology import make_plan

OF_RECIPES = {
    "deepseek-v3.1-w8a8": "DeepSeek_V3.1T_MTP1_PD",
    "glm-5.1-w8a8": "GLM5_1-W8A8-EP-external",
    "kimi-k2.6-w4a8": "Kimi-K2.6-W4A8-64k-1k-TPOT50-PD",
    "minimax-m2.5-w8a8": "MiniMax-PD-in32k-bs4-1",
    "qwen3-235b-w8a8": "QWEN3_235B_PD",
}
# Of the plan and of the recipe's own launcher; variables that nothing reads since long.
ANYWHERE = {
    *("--port", "--data-parallel-rpc-port", "--kv-transfer-config", "--served-model-name"),
    *("SERVER_PORT", "VLLM_USE_MODELSCOPE", "VLLM_RPC_TIMEOUT", "VLLM_USE_V1"),
    *("ACL_OP_INIT_MODE", "ASCEND_A3_ENABLE", "ASCEND_AGGREGATE_ENABLE", "ASCEND_TRANSPORT_PRINT"),
    *("ASCEND_LOG_DEVICE_FLUSH_TIMEOUT", "HCCL_ENTRY_LOG_ENABLE", "VLLM_TORCH_PROFILER_WITH_STACK"),
}
# By model: deepseek_mtp is today's mtp; prefill ignores the scheduler that recomputes; profiling is
# a setting of ours; experts' maps are recorded for a tool; keys that nothing reads are left out.
OF_MODEL = {
    "deepseek-v3.1-w8a8": {"--speculative-config", "--additional-config"},
    "glm-5.1-w8a8": {
        *("--speculative-config", "--profiler-config", "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"),
    },
    "qwen3-235b-w8a8": {
        *("--additional-config", "DISABLE_L2_CACHE", "DYNAMIC_EPLB", "EXPERT_MAP_RECORD"),
    },
}
ONE_HOST = "{prefill: [{hosts: [a]}], decode: [{hosts: [b]}], proxy: a}"
TWO_HOSTS = "{prefill: [{hosts: [a, b]}], decode: [{hosts: [c, d]}], proxy: a}"
ALONE = '{colocated: [{hosts: [a], devices: "%s"}]}'
# Model -> hardware, layout, and what every node has: its role, servers and devices of each.
LAYOUTS = {
    "deepseek-v3.1-w8a8": ("a3", TWO_HOSTS, {("prefill", 2, 8), ("decode", 16, 1)}),
    "deepseek-v3.2-w8a8": ("a3", TWO_HOSTS, {("prefill", 2, 8), ("decode", 4, 4)}),
    "glm-5.1-w8a8": ("a3", TWO_HOSTS, {("prefill", 2, 8), ("decode", 4, 4)}),
    "kimi-k2.6-w4a8": ("a3", ONE_HOST, {("prefill", 2, 8), ("decode", 4, 4)}),
    "minimax-m2.5-w8a8": ("a3", ONE_HOST, {("prefill", 4, 4), ("decode", 4, 4)}),
    "qwen3-235b-w8a8": ("a2", ALONE % "0-7", {("colocated", 1, 8)}),
    "qwen3-32b-w8a8": ("a2", ALONE % "4-7", {("colocated", 1, 4)}),
    "qwen3-8b": ("a5", ALONE % "1", {("colocated", 1, 1)}),
    "qwen2.5-7b": ("a2", ALONE % "7", {("colocated", 1, 1)}),
    "qwen2.5-0.5b": ("a3", ALONE % "0", {("colocated", 1, 1)}),
}


def planned(folder: Path, model: str, hardware: str, topology: str, *sets: str) -> Plan:
    hosts = "".join(
        f"  {name}: {{address: 10.0.0.{n}, interface: eth0}}\n" for n, name in enumerate("abcd", 1)
    )
    file = folder / "it.yaml"
    file.write_text(
        "profile: {engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0,"
        f" hardware: {hardware}, model: {model}}}\nhosts:\n{hosts}topology: {topology}\n"
    )
    return make_plan(config.load(str(file), (), sets, environ={}))


def test_all_models_of_the_engine_have_a_layout_here() -> None:
    files = [PROJECT / "configs" / "models" / f"{name}.yaml" for name in outside.shipped("models")]
    assert set(LAYOUTS) - {"qwen2.5-0.5b"} == {
        file.stem for file in files if "vllm-ascend" in file.read_text()
    }


@pytest.mark.parametrize("model", [name for name in LAYOUTS if name.endswith("a8")])
def test_quantised_weights_come_ready_made(model: str) -> None:
    """download-weights fills model.path with them: nothing is converted."""
    sets = (f"profile.model={model}",)
    settings = config.load("vllm-ascend-pd", (), sets, environ={}).settings
    assert settings.weights.source is None
    assert re.search(r"w[48]a8", str(settings.weights.download.repository).lower())
    assert settings.weights.format == "ascend_v1"


@pytest.mark.parametrize("model", LAYOUTS)
def test_a_model_is_planned_on_its_layout(model: str, tmp_path: Path) -> None:
    hardware, topology, wanted = LAYOUTS[model]
    plan = planned(tmp_path, model, hardware, topology)
    assert {(n.role, len(n.servers), len(n.servers[0].devices)) for n in plan.nodes} == wanted
    for node in plan.nodes:
        words = node.argv(node.servers[0])
        assert words[words.index("--tensor-parallel-size") + 1] == str(node.tensor_parallel)
        assert words[2].startswith("/data/")


@pytest.mark.parametrize("model", OF_RECIPES)
def test_a_model_is_served_as_its_recipe_says(model: str, tmp_path: Path) -> None:
    theirs, _ = recipes.planned(OF_RECIPES[model])
    groups: dict[tuple[str, int], list[str]] = {}
    for node in theirs.nodes:
        groups.setdefault((node.role, node.instance), []).append("abcd"[int(node.address[-1]) - 1])
    topology = {
        role: [{"hosts": hosts} for (own, _), hosts in groups.items() if own == role]
        for role in ("prefill", "decode")
    }
    text = yaml.safe_dump({**topology, "proxy": "a"}, default_flow_style=True, width=1000)
    ours = planned(tmp_path, model, "a3", text)
    known = ANYWHERE | OF_MODEL.get(model, set())
    for a, b in zip(ours.nodes, theirs.nodes):
        assert [s.devices for s in a.servers] == [s.devices for s in b.servers]
        for mine, their in zip(a.servers, b.servers):
            told = Started(tuple(b.argv(their)), b.environment(their), "")
            own = Started(tuple(a.argv(mine)), a.environment(mine), "")
            assert {found.name for found in differences(told, own)} <= known


@pytest.mark.parametrize("hardware, suffix", [("a2", ""), ("a3", "-a3"), ("a5", "-a5")])
def test_a_chip_has_its_image_and_its_devices(hardware: str, suffix: str, tmp_path: Path) -> None:
    topology = "{colocated: [{hosts: [a]}]}"
    sets = ["roles.colocated.server.tensor_parallel=null"]
    plan = planned(tmp_path, "qwen3-8b", hardware, topology, *sets)
    [node] = plan.nodes
    assert len(node.devices) == (16 if hardware == "a3" else 8)
    settings = config.load(str(tmp_path / "it.yaml"), environ={}).settings
    assert (settings.container.image_suffix or "") == suffix
    assert ("/dev/ummu" in settings.container.devices) == (hardware == "a5")
