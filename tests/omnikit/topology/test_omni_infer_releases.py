"""omni-infer's releases after v0.5.0: what each plans, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plan as plan_script
import pytest
from settings_file import FLEET, plan

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.plan.arguments import flag, json_flag
from omnikit.plan.types import NodePlan
from omnikit.prepare import ranktables
from omnikit.topology.topology import make_plan

FOUR_DECODE = """
profile: {engine: ascend, omni_version: "%s", model: %s}
hosts:
  p0: {address: 192.0.2.1}
  d0: {address: 192.0.2.3}
  d1: {address: 192.0.2.4}
  d2: {address: 192.0.2.5}
  d3: {address: 192.0.2.6}
topology:
  prefill: [{hosts: [p0]}]
  decode: [{hosts: [d0, d1]}, {hosts: [d2, d3]}]
  proxy: p0
"""
ONE_HOST = """
profile: {engine: ascend, omni_version: "%s", model: openpangu-2.0-flash}
hosts:
  a: {address: 192.0.2.1}
topology:
  prefill: [{hosts: [a], devices: "%s"}]
  decode: [{hosts: [a], devices: "%s"}]
  proxy: a
"""


def kv(node: NodePlan) -> dict[str, Any]:
    return json_flag(node, "kv-transfer-config")


@pytest.mark.parametrize("release", ["2025-10", "2026-03"])
def test_kv_parallel_size_is_decodes_tensor_parallel_size(release: str, tmp_path: Path) -> None:
    made = plan(tmp_path, FLEET.replace("v0.4.1", f"'{release}'"))
    assert {kv(node)["kv_parallel_size"] for node in made.nodes} == {1}
    two = ["roles.decode.server.tensor_parallel=2"]
    made = plan(tmp_path, FLEET.replace("v0.4.1", f"'{release}'"), two)
    assert {kv(node)["kv_parallel_size"] for node in made.nodes} == {2}


def test_who_says_another_kv_parallel_size_is_told_both_places(tmp_path: Path) -> None:
    path = "roles.disaggregated.server.args.kv-transfer-config.kv_parallel_size"
    with pytest.raises(InputError, match=r"kv_parallel_size 3, the plan has 1\.\n.*2025-10\.yaml"):
        plan(tmp_path, FLEET.replace("v0.4.1", "'2026-03'"), [f"{path}=3"])


@pytest.mark.parametrize(
    ("release", "model"),
    [
        ("2025-10-elastic", "deepseek-r1-w8a8"),
        ("2026-03-elastic", "deepseek-r1-w8a8"),
        ("2026-09", "openpangu-2.0-flash"),
    ],
)
def test_several_decode_instances_count_for_themselves_and_have_no_rank_tables(
    release: str, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(FOUR_DECODE % (release, model), encoding="utf-8")
    loaded = config.load(str(file), environ={})
    made = make_plan(loaded)
    assert not ranktables.needed(loaded, made)
    decode = [node for node in made.nodes if node.role == "decode"]
    assert [node.server_offset for node in decode] == [0, 16, 0, 16]
    assert [node.servers[0].dp_rank for node in decode] == [0, 16, 0, 16]
    assert {node.env["VLLM_DP_SIZE"] for node in decode} == {"32"}
    assert [node.master_ip for node in decode] == ["192.0.2.3"] * 2 + ["192.0.2.5"] * 2
    assert [node.env["LOCAL_DECODE_SERVER_IP_LIST"] for node in decode] == [
        *["192.0.2.3,192.0.2.4"] * 2,
        *["192.0.2.5,192.0.2.6"] * 2,
    ]
    prefill = made.nodes[0]
    # Each master before the ones so far, as upstream lists them.
    everybody = "192.0.2.5,192.0.2.3,192.0.2.4,192.0.2.6"
    assert prefill.env["GLOBAL_DECODE_SERVER_IP_LIST"] == everybody
    assert {kv(node)["kv_rank"] for node in decode} == {1}
    assert {kv(node)["kv_parallel_size"] for node in made.nodes} == {2}
    assert not any("RANK_TABLE_FILE_PATH" in node.env for node in made.nodes)


@pytest.mark.parametrize("release", ["2025-10", "2026-03", "2026-06"])
def test_a_release_with_one_decode_instance_refuses_several(release: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"2 decode instances, {release} has one"):
        plan(tmp_path, FOUR_DECODE % (release, "openpangu-2.0-flash"))


def test_prefill_and_decode_share_a_host_by_its_devices(tmp_path: Path) -> None:
    made = plan(tmp_path, ONE_HOST % ("2026-09", "0-7", "8-15"))
    prefill, decode = made.nodes
    assert prefill.env["ASCEND_RT_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    told = [decode.environment(one)["ASCEND_RT_VISIBLE_DEVICES"] for one in decode.servers]
    assert told == [str(device) for device in range(8, 16)]
    assert prefill.env["OMNI_PD_PREFILL_POD_NUM"] == prefill.env["OMNI_PD_DECODE_POD_NUM"] == "1"


def test_v0_5_0_refuses_decode_on_the_upper_devices_and_says_what_does_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tells each decode server its devices"):
        plan(tmp_path, ONE_HOST % ("v0.5.0", "0-7", "8-15"))


def test_a_decode_server_alone_is_told_no_data_parallel_rank(tmp_path: Path) -> None:
    made = plan(tmp_path, ONE_HOST % ("2026-09", "0-7", "8"))
    decode = made.nodes[1]
    assert flag(decode, "data-parallel-size") is flag(decode, "data-parallel-rank") is None
    made = plan(tmp_path, ONE_HOST % ("2026-09", "0-7", "8-9"))
    assert flag(made.nodes[1], "data-parallel-size") == "2"
    assert [
        s.own_args[s.own_args.index("--data-parallel-rank") + 1] for s in made.nodes[1].servers
    ] == ["0", "1"]


def test_ports_of_two_prefill_instances_on_one_host_lie_apart(tmp_path: Path) -> None:
    text = """
profile: {engine: ascend, omni_version: "%s", model: openpangu-2.0-flash}
hosts:
  a: {address: 192.0.2.1}
  d: {address: 192.0.2.2}
topology:
  prefill: [{hosts: [a], devices: "0-7"}, {hosts: [a], devices: "8-15"}]
  decode: [{hosts: [d]}]
  proxy: d
"""
    one, two, decode = plan(tmp_path, text % "2026-06").nodes
    names = ("VLLM_LLMDATADIST_BASE_PORT", "VLLM_LLMDATADIST_HEARTBEAT_PORT")
    names = (*names, "VLLM_LLMDATADIST_ZMQ_PORT")
    assert [one.env[name] for name in names] == ["15567", "15566", "5568"]
    assert [two.env[name] for name in names] == ["15575", "15583", "5569"]
    assert "VLLM_LLMDATADIST_BASE_PORT" not in decode.env
    one, two, decode = plan(tmp_path, text % "2026-09").nodes
    # Its data links: one for each device, counted twice by one of its files.
    assert [kv(node)["kv_port"] for node in (one, two)] == [5568, 5584]
    assert [node.env["OMNI_LLMDATADIST_ZMQ_PORT"] for node in (one, two)] == ["5568", "5584"]
    assert [(x.port, x.count) for x in one.listeners if x.kind == "kv"] == [(5568, 16)]


def test_engines_of_2026_have_the_metrics_of_their_vllm(tmp_path: Path) -> None:
    for release, usage in (("2026-03", "gpu_cache_usage"), ("2026-06", "kv_cache_usage")):
        given = [f"profile.omni_version={release}"]
        settings = config.load("2p1d", [], given, environ={}).settings
        assert settings.metrics.kv_usage == f"vllm:{usage}_perc"
    assert settings.monitoring.token_gap == "vllm:inter_token_latency_seconds"


def test_the_release_of_2026_06_has_no_file_for_the_model(tmp_path: Path) -> None:
    made = plan(tmp_path, ONE_HOST % ("2026-06", "0-7", "8-15"), ["profile.model=deepseek-r1-w8a8"])
    assert all(not node.files and not node.placement_check for node in made.nodes)
    assert all(flag(n, "additional-config") is None for n in made.nodes if n.role == "prefill")
    found = json.loads(str(flag(made.nodes[1], "additional-config")))
    assert found == {"graph_model_compile_config": {"level": 1}}


def test_graphs_of_an_earlier_start_are_removed_before_decode_and_the_plan_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "case.yaml"
    file.write_text(ONE_HOST % ("2026-09", "0-7", "8-15"), encoding="utf-8")
    prefill, decode = make_plan(config.load(str(file), environ={})).nodes
    assert not prefill.prepare and decode.prepare[0].startswith("rm -rf graph_cache")
    assert plan_script.main(["--environment", str(file), "--commands"]) == 0
    assert "before d0 on a: rm -rf graph_cache" in capsys.readouterr().out


def test_commands_before_servers_name_planned_facts_alone(tmp_path: Path) -> None:
    given = ["roles.decode.server.prepare=['echo ${plan.node_name}']"]
    text = ONE_HOST % ("2026-09", "0-7", "8-15")
    assert plan(tmp_path, text, given).nodes[1].prepare == ("echo d0",)
    with pytest.raises(InputError, match=r"api_port\} is no planned fact"):
        plan(tmp_path, text, ["roles.decode.server.prepare=['echo ${plan.api_port}']"])
