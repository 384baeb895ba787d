"""Ports of a plan: bases, offsets, overrides, and what happens when two want the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_file import FLEET, plan

from hostkit.base.errors import InputError

COLOCATED = """
profile: {engine: cpu, model: tiny-qwen2}
hosts:
  a: {address: 192.0.2.1, connection: local}
  b: {address: 192.0.2.1, connection: local}
topology:
  colocated: [{hosts: [a]}, {hosts: [b]}]
"""


def test_bases_offsets_and_ranks_give_the_ports(tmp_path: Path) -> None:
    made = plan(tmp_path, FLEET)
    assert [node.master_port for node in made.nodes] == [8000, 8001, 8100, 8100]
    first = [node.servers[0].api_port for node in made.nodes]
    assert first == [9000, 9001, 9100, 9101]
    assert [s.api_port for s in made.nodes[3].servers] == list(range(9101, 9117))
    assert made.proxy is not None and made.proxy.port == 7000
    assert {node.zmq_port for node in made.nodes} == {5568}
    assert {node.hccl_base for node in made.nodes} == {20000}


def test_overrides_replace_a_port_and_the_host_wins(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p1]}", "{hosts: [p1], api_port: 9500, master_port: 8500}")
    text = text.replace("{hosts: [p0]}", "{hosts: [p0], api_port: 9600}")
    text = text.replace("192.0.2.1}", "192.0.2.1, api_port: 9700}")
    p0, p1, *_ = plan(tmp_path, text).nodes
    assert (p0.servers[0].api_port, p1.servers[0].api_port) == (9700, 9500)
    assert p1.master_port == 8500


def test_instances_on_one_host_get_ports_of_their_own(tmp_path: Path) -> None:
    text = FLEET.replace("{hosts: [p1]}", "{hosts: [p0], devices: 8-15}")
    text = text.replace("{hosts: [p0]}", "{hosts: [p0], devices: 0-7}")
    p0, p1, *_ = plan(tmp_path, text).nodes
    assert (p0.zmq_port, p1.zmq_port) == (5568, 5569)
    assert (p0.hccl_base, p1.hccl_base) == (20000, 20064)


def test_only_an_instance_over_several_hosts_has_a_ray_head(tmp_path: Path) -> None:
    text = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    p0, p1, *_ = plan(tmp_path, text).nodes
    assert (p0.ray_port, p1.ray_port) == (6379, 6379)
    moved = plan(tmp_path, text, ["ports.proxy=6379"])  # what somebody chose stays
    assert moved.proxy is not None and moved.proxy.port == 6379
    assert [node.ray_port for node in moved.nodes[:2]] == [6380, 6380]


def test_what_rays_workers_take_is_left_free(tmp_path: Path) -> None:
    text = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    sets = ["ports.zmq=12000"]  # chosen by the toolkit from there on
    p0, *_ = plan(tmp_path, text, sets).nodes
    assert p0.zmq_port == 20000
    assert plan(tmp_path, FLEET, sets).nodes[0].zmq_port == 12000
    with pytest.raises(
        InputError, match=r"port 12000 on .* by what .* \(Ray's workers\)"
    ) as caught:
        plan(tmp_path, text, ["topology.proxy=p1", "ports.proxy=12000"])
    assert "ray.worker_ports" in str(caught.value)
    with pytest.raises(InputError, match="either last or per_device"):
        plan(tmp_path, text, ["ray.worker_ports.per_device=3"])


MOONCAKE = """
profile: {engine: vllm-ascend, omni_version: vllm-ascend-v0.23.0, model: any}
hosts: {a: {address: 192.0.2.1}, b: {address: 192.0.2.2}, c: {address: 192.0.2.3}}
topology:
  prefill: [{hosts: [a], servers: ranks}]
  decode: [{hosts: [b, c], kv_port: 30100, parts: {c: {kv_port: 30200}}}]
  proxy: a
roles: {disaggregated: {server: {tensor_parallel: 8}}}
"""


def test_a_part_of_an_instance_may_have_a_kv_port_of_its_own(tmp_path: Path) -> None:
    found = {
        node.name: next((one.port, one.count) for one in node.listeners if one.kind == "kv")
        for node in plan(tmp_path, MOONCAKE).nodes
    }
    assert found == {"p0": (18000, 16), "d0": (30100, 32), "d1": (30200, 32)}
    assert '"kv_port": 30200' in " ".join(plan(tmp_path, MOONCAKE).nodes[2].command)


def test_a_rank_of_several_tensor_parallel_groups_has_the_devices_of_all(tmp_path: Path) -> None:
    sets = ["roles.prefill.server.args.pipeline-parallel-size=2"]
    made = plan(tmp_path, MOONCAKE, [*sets, "roles.disaggregated.server.tensor_parallel=4"])
    p0, d0, _ = made.nodes
    assert [len(s.devices) for s in p0.servers] == [8, 8] and len(d0.servers) == 4
    assert next(one.count for one in p0.listeners if one.kind == "kv") == 16
    with pytest.raises(
        InputError, match=r"a multiple of its tensor parallel size 3 times 2 \(pipe"
    ):
        plan(tmp_path, MOONCAKE, [*sets, "roles.prefill.server.tensor_parallel=3"])


def test_replicas_of_one_host_would_take_the_same_kv_ports(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the 2 servers of p0 are alone") as caught:
        plan(tmp_path, MOONCAKE.replace("servers: ranks", "servers: replicas"))
    assert "list an instance for each" in str(caught.value)


@pytest.mark.parametrize(
    ("sets", "port", "place"),
    [
        (["ports.proxy=9000"], 9000, "--set ports.proxy: ports.proxy"),
        (["ports.master_base=9000"], 9100, "configs/defaults.yaml"),
        (["ports.master_base=8999"], 9100, "configs/defaults.yaml"),  # workers meet on the next
    ],
)
def test_a_port_used_twice_on_a_host_is_refused(
    tmp_path: Path, sets: list[str], port: int, place: str
) -> None:
    with pytest.raises(InputError, match=rf"port {port} on 192\.0\.2\.. is used twice") as caught:
        plan(tmp_path, FLEET, sets)
    assert str(caught.value.where).startswith(place)


def test_what_the_toolkit_chooses_makes_way(tmp_path: Path) -> None:
    made = plan(tmp_path, FLEET, ["ports.zmq=20000", "ports.hccl_base=6999"])
    assert made.nodes[0].zmq_port == 20000
    assert made.nodes[0].hccl_base == 7001  # 7000 is the proxy's, on this host alone
    assert made.nodes[1].hccl_base == 6999


def test_a_port_that_nothing_listens_on_is_a_note(tmp_path: Path) -> None:
    """The shipped omni_infer_deployment.yml: the proxy on the master port of a prefill instance."""
    made = plan(tmp_path, FLEET, ["ports.proxy=8000"])
    [note] = made.notes
    assert "ports.master_base: port 8000 on 192.0.2.1 is also for the proxy (--set ports" in note
    assert "nothing listens on its master port" in note
    assert plan(tmp_path, FLEET).notes == ()
    with pytest.raises(InputError, match=r"port 8100 on 192\.0\.2\.3 is used twice: by the master"):
        plan(tmp_path, FLEET.replace("proxy: p0", "proxy: d0"), ["ports.proxy=8100"])
    one = FLEET.replace("[d0, d1]}", "[d0], devices: 0}").replace("proxy: p0", "proxy: d0")
    [note] = plan(tmp_path, one, ["ports.proxy=8100"]).notes
    assert "d0 has data-parallel size 1" in note


def test_what_a_layout_does_not_listen_on_is_not_claimed(tmp_path: Path) -> None:
    kinds = {
        node.name: [one.kind for one in node.listeners] for node in plan(tmp_path, FLEET).nodes
    }
    assert kinds["p0"] == kinds["p1"] == ["api", "zmq", "hccl"]
    assert kinds["d0"] == ["master", "api", "hccl"] and kinds["d1"] == ["api", "hccl"]
    ray = FLEET.replace("[{hosts: [p0]}, {hosts: [p1]}]", "[{hosts: [p0, p1]}]")
    kinds = {node.name: [one.kind for one in node.listeners] for node in plan(tmp_path, ray).nodes}
    assert kinds["p0"] == ["api", "ray", "zmq", "hccl"] and kinds["p1"] == ["hccl"]
    untold = plan(tmp_path, FLEET, ["server.env.HCCL_IF_BASE_PORT=null"])
    assert [one.kind for one in untold.nodes[0].listeners] == ["api", "zmq"]


def test_two_names_of_one_machine_share_its_ports(tmp_path: Path) -> None:
    made = plan(tmp_path, COLOCATED)
    assert [node.servers[0].api_port for node in made.nodes] == [9200, 9201]
    text = COLOCATED.replace(
        "[{hosts: [a]}, {hosts: [b]}]", "[{hosts: [a]}, {hosts: [b], api_port: 9200}]"
    )
    with pytest.raises(
        InputError, match=r"port 9200 on 192\.0\.2\.1 is used twice: by the API of s0"
    ):
        plan(tmp_path, text)


@pytest.mark.parametrize(
    ("sets", "what"),
    [
        (["ports.api_base=65500", "ports.ephemeral_low=65536"], "the highest is 65535"),
        (["ports.proxy=40000"], "needs port 40000, but from 32768 on"),
    ],
)
def test_a_port_out_of_range_is_refused_with_its_setting(
    tmp_path: Path, sets: list[str], what: str
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        plan(tmp_path, FLEET, sets)
    assert str(caught.value.where).startswith("--set ports.")
