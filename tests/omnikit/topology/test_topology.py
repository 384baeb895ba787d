"""Plans: ranks, offsets, sizes and lists by the rules of omni-infer's templates."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_file import FLEET, load, plan

from hostkit.base.errors import InputError
from omnikit.config import config
from omnikit.config.layers import PROJECT
from omnikit.config.report import as_yaml
from omnikit.fleet import render
from omnikit.plan.types import NodePlan, Plan
from omnikit.prepare import ranktables
from omnikit.topology.topology import HOST_INTERFACE, make_plan, temp_dir
from omnikit.yaml.setting_types import parse_devices


def kv_config(node: NodePlan) -> dict[str, Any]:
    words = node.argv(node.servers[0])
    found: dict[str, Any] = json.loads(words[words.index("--kv-transfer-config") + 1])
    return found


@pytest.mark.parametrize(
    ("name", "prefill", "decode"),
    [("1p1d", 1, 2), ("2p1d", 2, 2), ("4p1d", 4, 4), ("8p1d", 8, 8), ("18p1d", 18, 18)],
)
def test_the_layouts_of_the_guide(name: str, prefill: int, decode: int) -> None:
    made = make_plan(config.load(name, environ={}))
    p = [node for node in made.nodes if node.role == "prefill"]
    d = [node for node in made.nodes if node.role == "decode"]
    assert [node.name for node in p] == [f"p{i}" for i in range(prefill)]
    assert [node.name for node in d] == [f"d{i}" for i in range(decode)]
    # kv_rank: prefill i has i, decode has P; kv_parallel_size is P + 1
    assert [node.kv_rank for node in p] == list(range(prefill))
    assert {node.kv_rank for node in d} == {prefill}
    assert {kv_config(node)["kv_parallel_size"] for node in made.nodes} == {prefill + 1}
    assert [kv_config(node)["kv_rank"] for node in p] == list(range(prefill))
    # prefill: one server over all devices; decode: one server per device
    assert {(len(node.servers), node.tensor_parallel, node.dp_size) for node in p} == {(1, 16, 1)}
    assert {(len(n.servers), n.tensor_parallel, n.dp_size) for n in d} == {(16, 1, decode * 16)}
    assert [node.server_offset for node in d] == [16 * i for i in range(decode)]
    assert [s.dp_rank for node in d for s in node.servers] == list(range(16 * decode))
    # master: the first host of the decode instance, whose address all its hosts use
    assert {(node.master_ip, node.master_port) for node in d} == {(d[0].address, 8100)}
    assert [node.master_port for node in p] == [8000 + i for i in range(prefill)]
    # the proxy has every server, in order
    assert made.proxy is not None
    assert made.proxy.prefill == tuple((n.address, 9000 + i) for i, n in enumerate(p))
    assert made.proxy.decode == tuple(
        (n.address, 9100 + i + k) for i, n in enumerate(d) for k in range(16)
    )


def test_each_server_gets_what_omni_infer_needs(tmp_path: Path) -> None:
    d1 = plan(tmp_path, FLEET).nodes[3]
    last = d1.servers[15]
    env = d1.environment(last)
    expected = {
        "ROLE": "decode",
        "PREFILL_POD_NUM": "2",
        "DECODE_POD_NUM": "1",
        "VLLM_LLMDATADIST_ZMQ_PORT": "5568",
        "LOCAL_DECODE_SERVER_IP_LIST": "192.0.2.3,192.0.2.4",
        "GLOBAL_DECODE_SERVER_IP_LIST": "192.0.2.3,192.0.2.4",
        "SERVER_OFFSET": "16",
        "VLLM_DP_SIZE": "32",
        "VLLM_DP_RANK": "31",
        "VLLM_DP_RANK_LOCAL": "31",
        "VLLM_DP_MASTER_IP": "192.0.2.3",
        "VLLM_DP_MASTER_PORT": "8100",
        "GLOO_SOCKET_IFNAME": HOST_INTERFACE,
        "HCCL_BUFFSIZE": "1000",
    }
    assert {key: env.get(key) for key in expected} == expected
    assert "ASCEND_RT_VISIBLE_DEVICES" not in env
    words = d1.argv(last)
    for flag, value in {
        "--port": "9116",
        "--tensor-parallel-size": "1",
        "--data-parallel-address": "192.0.2.3",
        "--data-parallel-rpc-port": "8100",
        "--max-model-len": "16384",
    }.items():
        assert words[words.index(flag) + 1] == value
    assert kv_config(d1) == {
        "kv_connector": "AscendHcclConnectorV1",
        "kv_buffer_device": "npu",
        "kv_role": "kv_consumer",
        "kv_rank": 2,
        "engine_id": 2,
        "kv_parallel_size": 3,
    }


@pytest.mark.parametrize("devices", ["8-15", "1-15", "0-2,4", "1,0"])
def test_decode_takes_a_hosts_first_devices_or_is_refused(tmp_path: Path, devices: str) -> None:
    """vLLM 0.9.0 and omni's worker count them from 0; a release may tell each server its own."""
    text = FLEET.replace("{hosts: [d0, d1]}", f"{{hosts: [d0, d1], devices: '{devices}'}}")
    with pytest.raises(InputError, match=r"case\.yaml:\d+: topology\.decode\.0\.devices.*v0\.4\.1"):
        plan(tmp_path, text)
    own = ["engine.decode_devices=told"]
    own.append("roles.decode.server.env.ASCEND_RT_VISIBLE_DEVICES=${plan.server_devices}")
    d0 = plan(tmp_path, text, own).nodes[2]
    told = [d0.environment(server)["ASCEND_RT_VISIBLE_DEVICES"] for server in d0.servers]
    assert told == [str(device) for device in parse_devices(devices)]


def test_a_list_of_devices_for_decode_is_refused_where_the_engine_counts(tmp_path: Path) -> None:
    listed = ["roles.decode.server.env.ASCEND_RT_VISIBLE_DEVICES=0"]
    with pytest.raises(InputError, match=r"--set .*d0 is told ASCEND_RT_VISIBLE_DEVICES.*IndexErr"):
        plan(tmp_path, FLEET, listed)


def test_2025_08_cannot_number_the_ranks_of_wide_decode_servers(tmp_path: Path) -> None:
    given = ["profile.omni_version=2025-08", "roles.decode.server.tensor_parallel=2"]
    with pytest.raises(
        InputError, match=r"2025-08\.yaml:\d+: .*d1\.0 is told .*rank 16 of 0 to 15"
    ):
        plan(tmp_path, FLEET, given)
    alone = FLEET.replace("{hosts: [d0, d1]}", "{hosts: [d0]}")
    d0 = plan(tmp_path, alone, given).nodes[2]
    ranks = [d0.environment(server)["VLLM_DP_RANK"] for server in d0.servers]
    assert ranks == [str(rank) for rank in range(8)]


def test_prefill_and_colocated_settings_follow_their_role(tmp_path: Path) -> None:
    p0 = plan(tmp_path, FLEET).nodes[0]
    env = p0.environment(p0.servers[0])
    assert env["ROLE"] == "prefill"
    assert env["ASCEND_RT_VISIBLE_DEVICES"] == ",".join(map(str, range(16)))
    assert "HCCL_BUFFSIZE" not in env
    assert kv_config(p0)["kv_role"] == "kv_producer"
    text = """
profile: {engine: ascend, omni_version: v0.4.1, model: qwen2.5-0.5b}
hosts: {a: {address: 192.0.2.1}}
topology: {colocated: [{hosts: [a], devices: "0", api_port: 8300}]}
"""
    s0 = plan(tmp_path, text).nodes[0]
    env = s0.environment(s0.servers[0])
    assert (s0.name, s0.servers[0].api_port, s0.tensor_parallel) == ("s0", 8300, 1)
    assert (env["VLLM_ENABLE_MC2"], env["ASCEND_RT_VISIBLE_DEVICES"]) == ("0", "0")
    assert "--kv-transfer-config" not in s0.argv(s0.servers[0])


def test_a_prefill_instance_over_several_hosts_shares_its_rank(tmp_path: Path) -> None:
    text = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    made = plan(tmp_path, text)
    p0, p1 = made.nodes[:2]
    assert (p0.kv_rank, p1.kv_rank, made.nodes[2].kv_rank) == (0, 0, 1)
    assert (p0.tensor_parallel, p1.tensor_parallel) == (32, 32)
    assert (len(p0.servers), len(p1.servers)) == (1, 0)
    assert p1.master_ip == p0.address
    assert p0.env["RANK_TABLE_FILE_PATH"].endswith("/local_ranktable_merge.json")
    assert made.proxy is not None and len(made.proxy.prefill) == 1


def test_a_rank_table_is_named_after_address_and_devices(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p0]}", "{hosts: [p0], devices: 0-3}")
    p0 = plan(tmp_path, text).nodes[0]
    path = p0.env["RANK_TABLE_FILE_PATH"]
    assert path.endswith("/ranktable/local_ranktable_192.0.2.1_0123.json")


def test_decode_servers_on_cpu_have_ranks_of_their_own(tmp_path: Path) -> None:
    text = """
profile: {engine: cpu, model: tiny-qwen2}
paths: {work_dir: /w}
model: {path: /m}
engine: {venv: /v}
hosts: {p: {address: 192.0.2.1}, d: {address: 192.0.2.2}, e: {address: 192.0.2.3}}
topology: {prefill: [{hosts: [p]}], decode: [{hosts: [d, e]}], proxy: p}
"""
    made = plan(tmp_path, text)
    assert [s.dp_rank for n in made.nodes if n.role == "decode" for s in n.servers] == [0, 1]


def test_paths_are_below_the_project_here_and_absolute_over_ssh(tmp_path: Path) -> None:
    here = make_plan(config.load("local", (), ["paths.log_dir=build/x"], {}))
    assert here.hosts[0].work_dir == f"{PROJECT}/build/local"
    assert here.nodes[0].log_dir == f"{PROJECT}/build/x/p0"
    assert here.model_path == f"{PROJECT}/build/models/tiny-qwen2"
    settings_ = ("paths.work_dir", "paths.log_dir", "model.path", "engine.venv")
    for setting in settings_:
        for path in ("relative/x", "~/x"):
            with pytest.raises(InputError, match="behind SSH needs an absolute path") as caught:
                plan(tmp_path, FLEET, ["runtime=process", f"{setting}={path}"])
            assert caught.value.where == f"--set {setting}"


def test_a_host_that_nothing_runs_on_is_not_in_the_plan(tmp_path: Path) -> None:
    text = FLEET.replace("topology:", "  spare: {address: nonsense.example}\ntopology:")
    assert [host.name for host in plan(tmp_path, text).hosts] == ["p0", "p1", "d0", "d1"]


def test_an_unknown_reference_is_refused_where_it_stands(tmp_path: Path) -> None:
    text = FLEET + "roles: {decode: {server: {env: {A: '${plan.kv_rang}'}}}}\n"
    with pytest.raises(InputError, match="is it") as caught:
        plan(tmp_path, text)
    assert caught.value.where == f"{tmp_path}/case.yaml:12"
    with pytest.raises(InputError, match="api_port} is no planned fact"):
        plan(tmp_path, FLEET, ["server.files={a.json: {port: '${plan.api_port}'}}"])
    with pytest.raises(InputError, match="api_port} is no planned fact"):  # one command, 16 servers
        plan(tmp_path, FLEET, ["server.command=[serve, '${plan.api_port}']"])


def test_sockets_have_a_short_folder_for_each_work_dir() -> None:
    settings = config.load("1p1d", assignments=["runtime=process"], environ={}).settings
    host = next(iter(settings.hosts.values())).model_copy(update={"user": "root"})
    assert len(temp_dir(settings, host, "/data/" + "x" * 200)) < 40
    assert temp_dir(settings, host, "/a") != temp_dir(settings, host, "/b")
    # What is known of a user behind SSH is the work directory alone; containers see that one.
    ops = host.model_copy(update={"user": "ops"})
    assert temp_dir(settings, ops, "/data/x") == "/data/x/run"
    docker = settings.model_copy(update={"runtime": "docker"})
    assert temp_dir(docker, host, "/data/x") == "/data/x/run"
    long = "/data/" + "x" * 60
    assert temp_dir(docker, host, long) == temp_dir(settings, host, long)
    assert temp_dir(docker, ops, long) == f"{long}/run"


# --- any valid topology --------------------------------------------------------------------


@st.composite
def topologies(draw: st.DrawFn) -> str:
    """A valid environment of 2 to 64 hosts with 1 to 16 devices, some of them shared, some told
    another port or fewer devices than the rest."""
    hosts: dict[str, Any] = {}

    def new_host() -> str:
        name = f"h{len(hosts)}"
        hosts[name] = {"address": f"10.0.0.{len(hosts) + 1}"}
        return name

    tp = draw(st.sampled_from([1, 2, 4]))
    prefill = []
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            host = new_host()  # two instances that split the devices of a machine
            prefill += [{"hosts": [host], "devices": d} for d in ("0-7", "8-15")]
        else:
            prefill.append({"hosts": [new_host() for _ in range(draw(st.integers(1, 3)))]})
    decode = {"hosts": [new_host() for _ in range(draw(st.integers(1, 28)))]}
    choices = ["0-15", "0-7", "0-3"] + (["0", "0-2"] if tp == 1 else [])
    for host in decode["hosts"]:
        hosts[host]["devices"] = draw(st.sampled_from(choices))
        if draw(st.integers(0, 9)) == 0:
            hosts[host]["api_port"] = draw(st.integers(10000, 15000))
    return as_yaml(
        {
            "profile": {"engine": "ascend", "omni_version": "v0.4.1", "model": "deepseek-r1-w8a8"},
            "hosts": hosts,
            "topology": {
                "prefill": prefill,
                "decode": [decode],
                "proxy": draw(st.sampled_from(sorted(hosts))),
            },
            "roles": {"decode": {"server": {"tensor_parallel": tp}}},
        }
    )


def used_ports(made: Plan) -> Counter[tuple[str, int]]:
    """What vLLM 0.9.0 with omni-infer's connector really listens on, and the proxy."""
    used: Counter[tuple[str, int]] = Counter()
    for node in made.nodes:
        used.update((node.address, s.api_port) for s in node.servers)
        if "HCCL_IF_BASE_PORT" in node.env:
            used.update((node.address, node.hccl_base + k) for k in range(64))
        if node.node_rank == 0 and node.role == "prefill":
            used.update([(node.address, node.zmq_port)])
            used.update([(node.address, node.ray_port)] if node.ray else [])
        if node.node_rank == 0 and node.dp_size > 1:
            used.update((node.address, node.master_port + k) for k in range(2))
    assert made.proxy is not None
    used.update([(made.proxy.address, made.proxy.port)])
    return used


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(text=topologies())
def test_any_valid_topology_is_consistent(tmp_path_factory: Any, text: str) -> None:
    loaded = load(tmp_path_factory.getbasetemp(), text)
    made = make_plan(loaded)
    assert set(used_ports(made).values()) == {1}
    listened = Counter(
        (n.address, one.port + k)
        for n in made.nodes
        for one in n.listeners
        for k in range(one.count)
    )
    assert made.proxy is not None
    assert {*listened, (made.proxy.address, made.proxy.port)} == set(used_ports(made))
    assert max(port for _, port in used_ports(made)) < loaded.settings.ports.ephemeral_low
    devices = Counter((n.address, device) for n in made.nodes for device in n.devices)
    assert set(devices.values()) == {1}
    for node in made.nodes:
        of_servers = [device for server in node.servers for device in server.devices]
        assert of_servers == (list(node.devices) if node.servers else [])
    decode = [node for node in made.nodes if node.role == "decode"]
    ranks = [server.dp_rank for node in decode for server in node.servers]
    assert ranks == list(range(decode[0].dp_size))
    prefill = len(loaded.settings.topology.prefill)
    assert {node.kv_rank for node in made.nodes} == set(range(prefill + 1))
    assert {n.kv_rank for n in decode} == {prefill}
    names = [server.name for node in made.nodes for server in node.servers]
    assert len(set(names)) == len(names)
    assert made.proxy is not None
    assert len(made.proxy.prefill) == prefill
    assert len(made.proxy.decode) == decode[0].dp_size


@settings(max_examples=12, deadline=None)
@given(text=topologies(), pick=st.integers(0, 10**6))
def test_the_scripts_of_any_valid_topology_yield_exactly_what_is_planned(
    tmp_path_factory: Any, text: str, pick: int
) -> None:
    """Run with a program in the engine's place that prints what it was given."""
    folder = tmp_path_factory.mktemp("scripts")
    nodes = [node for node in make_plan(load(folder, text)).nodes if node.servers]
    node = nodes[pick % len(nodes)]
    server = node.servers[pick % len(node.servers)]
    recorder = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    recording = replace(
        node,
        command=(sys.executable, "-c", recorder, *node.command),
        env={**node.env, "GLOO_SOCKET_IFNAME": "eth0", "TP_SOCKET_IFNAME": "eth0"},
        temp_dir=str(folder / "temp"),
        workdir=str(folder),
        ray_wait=(),
        placement_check=(),
    )
    script = folder / "start.sh"
    script.write_text(render.start_script("any", recording), encoding="utf-8")
    words = ["bash", str(script), str(server.local_rank)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    given_words, variables = json.loads(done.stdout)
    assert tuple(given_words) == node.argv(server)
    planned = recording.environment(server)
    assert {name: variables.get(name) for name in planned} == planned


@settings(max_examples=25, deadline=None)
@given(text=topologies())
def test_the_rank_tables_of_any_valid_topology_fit_the_plan(
    tmp_path_factory: Any, text: str
) -> None:
    made = make_plan(load(tmp_path_factory.getbasetemp(), text))
    addresses = {
        host.name: {device: f"10.{number}.0.{device + 1}" for device in range(16)}
        for number, host in enumerate(made.hosts)
    }
    instances = ranktables.table_instances(made.nodes)
    files = ranktables.planned_files(ranktables.planned(instances, addresses), "global")
    for node in made.nodes:
        named = node.env["RANK_TABLE_FILE_PATH"].rpartition("/ranktable/")[2]
        assert named in files[node.host], (node.name, named)
    table = json.loads(next(iter(files.values()))["global/global_ranktable_merge.json"])
    groups = table["server_group_list"]
    assert len(groups) == len({(node.role, node.instance) for node in made.nodes})
    devices = [d for g in groups for s in g["server_list"] for d in s["device"]]
    assert len(devices) == sum(len(node.devices) for node in made.nodes)
    for group in groups:
        ranks = [int(d["rank_id"]) for s in group["server_list"] for d in s["device"]]
        assert ranks == list(range(len(ranks)))


def big_fleet(size: int) -> str:
    half = size // 2
    names = [f"p{i}" for i in range(half)] + [f"d{i}" for i in range(half)]
    return as_yaml(
        {
            "profile": {"engine": "ascend", "omni_version": "v0.4.1", "model": "deepseek-r1-w8a8"},
            "hosts": {
                n: {"address": f"10.0.{i // 250}.{i % 250 + 1}"} for i, n in enumerate(names)
            },
            "topology": {
                "prefill": [{"hosts": [name]} for name in names[:half]],
                "decode": [{"hosts": names[half:]}],
                "proxy": "p0",
            },
        }
    )


def test_the_work_grows_with_the_fleet_and_not_with_its_square(tmp_path: Path) -> None:
    def calls(size: int) -> int:
        text, count = big_fleet(size), 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += event == "call"

        loaded = load(tmp_path, text)
        sys.setprofile(profile)
        try:
            make_plan(loaded)
        finally:
            sys.setprofile(None)
        return count

    small, large = calls(40), calls(160)
    assert large < 5 * small


def test_a_large_fleet_is_planned_in_seconds(tmp_path: Path) -> None:
    started = time.perf_counter()
    made = plan(tmp_path, big_fleet(1000))
    assert len(made.nodes) == 1000
    assert time.perf_counter() - started < 10  # 0.3 s on an idle machine
