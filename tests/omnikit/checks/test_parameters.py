"""What the checks of each host are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnikit.checks import environment as checks_parameters
from omnikit.config import config
from omnikit.topology import topology

ROOT = Path(__file__).resolve().parents[3]
NPU = str(ROOT / "tests" / "environments" / "npu.yaml")
RAY = str(ROOT / "tests" / "environments" / "ray.yaml")


def made(environment: str, *assignments: str) -> dict[str, dict[str, Any]]:
    found = config.load(environment, assignments=assignments)
    return checks_parameters.check_parameters(found, topology.make_plan(found))


def reach(
    environment: str, ips: dict[str, dict[str, str]], *assignments: str
) -> dict[str, dict[str, Any]]:
    found = config.load(environment, assignments=assignments)
    return checks_parameters.reach_parameters(found, topology.make_plan(found), ips)


def purposes(parameters: dict[str, Any]) -> dict[str, list[int]]:
    """Ports by what they are for."""
    found: dict[str, list[int]] = {}
    for _, port, purpose in parameters["ports"]:
        found.setdefault(purpose, []).append(port)
    return found


def test_every_key_of_the_interface_is_there_and_all_is_json() -> None:
    import json

    given = made("2p1d")["p0"]
    assert set(given) == {
        *("host", "work_dir", "device_kind", "devices", "runtime", "disaggregated", "ports"),
        *("interface", "address", "peers", "paths", "model_generated", "image", "image_built"),
        *("quantization", "proxy_cores", "release"),
        *(
            "container_engine",
            "container_devices",
            "mounts",
            "containers",
            "image_platform",
            "image_free_mib",
            "engine_apart",
            "venv_python",
            "shm_size",
        ),
        *("checks", "ranktable"),
    }
    assert json.loads(json.dumps(given)) == given
    assert [one["proxy_cores"] for one in made("2p1d").values()] == [20, 0, 0, 0]


def test_what_the_servers_of_a_host_are_told_of_quantisation() -> None:
    assert made("2p1d")["p0"]["quantization"] == []
    told = made("2p1d", "server.args.quantization=ascend")
    assert {given["quantization"][0] for given in told.values()} == {"ascend"}
    role = made("2p1d", "roles.decode.server.args.quantization=fp8")
    assert [role[host]["quantization"] for host in ("p0", "d0")] == [[], ["fp8"]]


def test_a_host_of_the_guide_is_asked_for_what_the_guide_plans() -> None:
    given = made("2p1d")
    assert list(given) == ["p0", "p1", "d0", "d1"]
    p1 = given["p1"]
    assert (p1["host"], p1["address"], p1["device_kind"]) == ("p1", "192.0.2.12", "npu")
    assert p1["devices"] == list(range(16))
    assert (p1["runtime"], p1["disaggregated"]) == ("docker", True)
    assert p1["peers"] == [["p0", "192.0.2.11"], ["d0", "192.0.2.13"], ["d1", "192.0.2.14"]]
    assert p1["image"].startswith("swr.") and p1["image_built"] is False
    assert p1["paths"] == {
        "model": "/data/models/DeepSeek-R1-W8A8",
        "log": "/data/omnikit/logs",
        "code": "/data/omnikit",
    }
    assert p1["container_devices"][0] == "/dev/davinci_manager"
    assert p1["checks"]["container_engine"] == "20.10"
    assert p1["ranktable"]["npu_smi"] == "npu-smi"
    assert p1["venv_python"] is None


def test_every_planned_port_of_a_host_is_named_with_its_purpose() -> None:
    found = purposes(made(NPU)["a3"])
    assert found["the API of p1"] == [9001]
    assert found["the master of d0"] == [8100, 8101]
    assert found["the API of d0"] == list(range(9100, 9108))
    assert found["the ZMQ messages of p1"] == [5569]
    assert found["HCCL of p1"] == list(range(20064, 20128))
    assert found["the proxy"] == [7000]
    # What no server opens is not asked for: prefill has data-parallel size 1, decode only connects.
    assert not {"the master of p0", "the ZMQ messages of d0", "the KV side channel of p1"} & {
        *found
    }


def test_no_port_is_asked_for_twice() -> None:
    for host in made(NPU).values():
        ports = [port for _, port, _ in host["ports"]]
        assert len(set(ports)) == len(ports)


def test_masters_and_ray_heads_are_on_the_first_host_only() -> None:
    given = made(RAY)
    assert purposes(given["p0"])["the Ray head of p0"] == [6379]
    assert "the master of d0" in purposes(given["d0"])
    second = {*purposes(given["p1"]), *purposes(given["d1"])}
    assert not any(purpose.startswith(("the Ray", "the master")) for purpose in second)


def test_without_accelerators_and_containers_their_things_are_not_asked_for() -> None:
    local = made("local")["local"]
    assert (local["device_kind"], local["devices"], local["image"]) == ("none", [], None)
    assert local["peers"] == []
    assert local["model_generated"] is True
    assert not any(purpose.startswith("HCCL") for purpose in purposes(local))
    assert local["paths"]["log"] == str(ROOT / "build" / "local" / "logs")
    assert made("local", "runtime=docker")["local"]["image_built"] is True


def test_an_engine_that_the_toolkit_installs_need_not_be_there_yet(tmp_path: Path) -> None:
    place = f"engine.venv={tmp_path}/venv"
    assert made("local", place)["local"]["venv_python"] is None
    by_hand = made("local", place, "engine.requirements=null")
    assert by_hand["local"]["venv_python"] == f"{tmp_path}/venv/bin/python"
    in_containers = made("local", place, "engine.requirements=null", "runtime=docker")
    assert in_containers["local"]["venv_python"] is None


def test_shared_memory_is_the_containers() -> None:
    assert made("2p1d")["p0"]["shm_size"] == "500g"
    assert made("local")["local"]["shm_size"] is None


def test_the_log_folder_is_the_configured_one() -> None:
    assert made("2p1d", "paths.log_dir=/logs")["p0"]["paths"]["log"] == "/logs"
    assert made("local", "paths.log_dir=build/logs")["local"]["paths"]["log"] == str(
        ROOT / "build" / "logs"
    )


def test_hosts_of_a_disaggregated_plan_try_one_another() -> None:
    ips = {"p0": {"0": "10.1.0.100"}, "d0": {"0": "10.1.2.100"}}
    found = reach("2p1d", ips, "hosts.d1.port=2222")
    assert list(found) == ["p0", "p1", "d0", "d1"]
    assert found["p0"]["peers"] == [
        ["p1", "192.0.2.12", 22],
        ["d0", "192.0.2.13", 22],
        ["d1", "192.0.2.14", 2222],
    ]
    assert found["p0"]["pings"] == [[0, "10.1.2.100"]]
    assert found["p1"]["pings"] == []  # it said no addresses
    assert found["p0"]["hccn_tool"] == "hccn_tool"
    assert (found["p0"]["at_once"], found["p0"]["timeout_s"]) == (16, 20)


@pytest.mark.parametrize("environment", ["local", "colocated", NPU])
def test_one_host_and_colocated_servers_need_not_reach_others(environment: str) -> None:
    assert reach(environment, {}) == {}


def test_few_hosts_ping_from_every_device_to_every_peer() -> None:
    peers = [[f"10.1.{peer}.{n}" for n in range(16)] for peer in (1, 2)]
    found = checks_parameters.pings(list(range(16)), peers)
    assert len(found) == 32
    assert [3, "10.1.2.3"] in found


@pytest.mark.parametrize(("devices", "hosts"), [(16, 35), (16, 5), (2, 40)])
def test_many_hosts_ping_each_device_and_each_peer_at_least_once(devices: int, hosts: int) -> None:
    peers = [[f"10.1.{peer}.{n}" for n in range(devices)] for peer in range(hosts)]
    found = checks_parameters.pings(list(range(devices)), peers)
    assert {device for device, _ in found} == set(range(devices))
    assert {address.split(".")[2] for _, address in found} == set(map(str, range(hosts)))
    assert len(found) == max(devices, hosts)


def test_peers_with_fewer_devices_are_pinged_as_well() -> None:
    assert checks_parameters.pings([0, 1], [["10.1.1.1"]]) == [[0, "10.1.1.1"], [1, "10.1.1.1"]]
    assert checks_parameters.pings([], [["10.1.1.1"]]) == []
